package backup_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// mergeWithLimit is the child of TestMergeFaults: it merges a backup while no file may be
// written beyond a size. The first write beyond it kills the process, or with "fail" returns
// an error.
func mergeWithLimit(arg string) {
	var path, file, text, signer, how string
	var limit uint64
	if _, err := fmt.Sscan(strings.ReplaceAll(arg, "|", " "), &path, &file, &text, &signer, &how, &limit); err != nil {
		panic(err)
	}
	identity, err := age.ParseX25519Identity(text)
	if err != nil {
		panic(err)
	}
	ctx, identities := context.Background(), []age.Identity{identity}
	f, err := os.Open(file)
	if err != nil {
		panic(err)
	}
	part, err := backup.ReadPart(ctx, f, backup.PartOptions{ReadOptions: backup.ReadOptions{Identities: identities, Trust: backup.TrustSigners(signer)}})
	if err != nil {
		panic(err)
	}
	v, err := vault.Open(ctx, vault.Config{Path: path, Identities: identities, ConfirmSigner: vaulttest.AcceptSigner})
	if err != nil {
		panic(err)
	}
	if how == "fail" {
		signal.Ignore(syscall.SIGXFSZ) // by default it kills a Go program
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: math.MaxUint64}); err != nil {
		panic(err)
	}
	if _, err := part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup}); err != nil {
		fmt.Println("refused:", err)
		os.Exit(3)
	}
	if how == "kill" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL) // acknowledged, and not closed
	}
	if err := v.Close(); err != nil {
		os.Exit(4) // acknowledged
	}
}

// TestMergeFaults: at each write of a merge the process is killed, and at each the disk fails.
// The vault is then as before, or as after it; what was acknowledged is there.
func TestMergeFaults(t *testing.T) {
	cfg, v := fleet(t)
	ctx, r := t.Context(), registry.New(v)
	file := filepath.Join(t.TempDir(), "b.age")
	for i := range 40 {
		must(t, r.CreateNode(ctx, node(fmt.Sprintf("hive-%d", 100+i))))
	}
	c, err := backup.Create(ctx, v, backup.CreateOptions{Path: file})
	must(t, err)
	after := content(t, v)
	for i := range 20 {
		_, err := r.RemoveNode(ctx, fmt.Sprintf("hive-%d", 100+i))
		must(t, err)
	}
	_, err = r.RemoveNode(ctx, "hive-01")
	must(t, err, r.UpdateNode(ctx, "hive-02", func(n *registry.Node) error { n.Note = "changed"; return nil }))
	before := content(t, v)
	must(t, v.Close())

	m := faultyMerge{cfg: cfg, file: file, signer: c.Signer, before: before, after: after}
	for _, how := range []string{"fail", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			refused := 0
			for limit := uint64(0); !m.run(t, how, limit); limit += 4096 + 24 { // one page in the log
				refused++
			}
			if refused < 5 {
				t.Errorf("only %d writes of the merge were hit", refused)
			}
			t.Logf("%d writes hit", refused)
		})
	}
}

// faultyMerge is a vault and a backup, with the content before and after its merge.
type faultyMerge struct {
	cfg           vault.Config
	file, signer  string
	before, after any
}

// run merges in a copy of the vault, under a limit. It checks what is there then, and reports
// whether the merge was acknowledged.
func (m faultyMerge) run(t *testing.T, how string, limit uint64) (acknowledged bool) {
	t.Helper()
	copied := elsewhere(t, m.cfg)
	for _, suffix := range []string{"", ".slots"} {
		data, err := os.ReadFile(m.cfg.Path + suffix)
		must(t, err, os.WriteFile(copied.Path+suffix, data, 0o600))
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("RBEE_TEST_CHILD=merge|%s|%s|%s|%s|%s|%d",
		copied.Path, m.file, m.cfg.Identities[0].(*age.X25519Identity), m.signer, how, limit))
	out, err := cmd.CombinedOutput()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	acknowledged = err == nil || status.ExitStatus() == 4 || status.Signaled() && status.Signal() == syscall.SIGKILL
	if how == "fail" && !acknowledged && status.ExitStatus() != 3 {
		t.Fatalf("limit %d: %v: %.300s", limit, err, out)
	}
	again := vaulttest.Open(t, copied)
	var got any = content(t, again)
	isBefore, isAfter := cmp.Equal(m.before, got), cmp.Equal(m.after, got)
	if !isBefore && !isAfter || acknowledged && !isAfter || status.ExitStatus() == 3 && !isBefore {
		t.Errorf("%s at %d: acknowledged %t (exit %d): %.300s\n%s", how, limit, acknowledged, status.ExitStatus(), out, cmp.Diff(m.before, got))
	}
	intact(t, again)
	must(t, again.Close())
	return acknowledged
}
