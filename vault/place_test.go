package vault_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestHardLinks: a database with a second name is refused, under both names, until it has one
// name again.
func TestHardLinks(t *testing.T) {
	cfg := vaulttest.Config(t)
	other := filepath.Join(vaulttest.Dir(t), "other.db")
	if err := os.Link(cfg.Path, other); err != nil {
		t.Fatal(err)
	}
	byOther := cfg
	byOther.Path = other
	fill := func(context.Context, *vault.Tx) (vault.Backup, error) { return vault.Backup{}, errors.New("filled") }
	_, replace := vault.Restore(t.Context(), cfg, vault.RestoreOptions{Replace: true, Fill: fill})
	for name, err := range map[string]error{
		"open":                openAndClose(t.Context(), cfg),
		"open by the other":   openAndClose(t.Context(), byOther),
		"replace":             replace,
		"through a migration": openAndClose(t.Context(), nextSchema(cfg)),
	} {
		insecure, ok := errors.AsType[*vault.InsecureError](err)
		if !ok || !strings.Contains(insecure.Rule, "2 names") || !strings.Contains(insecure.Fix, "cp -p") {
			t.Errorf("%s: %v, want an InsecureError", name, err)
		}
	}
	// The command in the error fixes it.
	if out, err := exec.Command("sh", "-c", mustMend(t, cfg)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Errorf("fixed: %v", err)
	}
	os.Remove(other)
	// The rule is the same for a file that was set aside.
	aside := cfg
	aside.Path += ".replaced-20260101T000000Z"
	write(t, aside.Path, read(t, cfg.Path))
	write(t, aside.Path+".slots", read(t, cfg.Path+".slots"))
	if err := openAndClose(t.Context(), aside); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(aside.Path, other); err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(t.Context(), aside); !errors.Is(err, vault.ErrInsecure) {
		t.Errorf("set aside: %v, want ErrInsecure", err)
	}
}

func mustMend(t *testing.T, cfg vault.Config) string {
	t.Helper()
	insecure, ok := errors.AsType[*vault.InsecureError](openAndClose(t.Context(), cfg))
	if !ok {
		t.Fatal("it is not refused")
	}
	return insecure.Fix
}

// TestLinkOfAnInterruptedCommit: the second name is the vault's own, and the next open removes
// it.
func TestLinkOfAnInterruptedCommit(t *testing.T) {
	counted := &faulttest.Steps{}
	if err := create(t.Context(), newCrashSite(t, true), counted); err != nil {
		t.Fatal(err)
	}
	s := newCrashSite(t, true)
	s.killed(t, "init", "", slices.Index(counted.Names(), "link beehives.db")+1, faulttest.KillAfter)
	if a, err := os.Stat(s.db()); err != nil {
		t.Fatal(err)
	} else if b, err := os.Stat(s.db() + ".new"); err != nil || !os.SameFile(a, b) {
		t.Fatal("there is no second name")
	}
	if got := s.look(t, s.config(&faulttest.Steps{})); got != scenarios["init"].outcome {
		t.Errorf("there is %s", got)
	}
	s.clean(t)
}

// TestNetworkFS: on a network file system no vault is made or opened for writing, unless that
// is allowed.
func TestNetworkFS(t *testing.T) {
	local := vaulttest.Config(t)
	cfg := local.OnNetworkFS("NFS")
	fresh := cfg
	fresh.Path = filepath.Join(vaulttest.Dir(t), "b.db")
	opts := vault.CreateOptions{Recipients: []string{newIdentity(t).Recipient().String()}}
	_, create := vault.Create(t.Context(), fresh, opts)
	_, restore := vault.Restore(t.Context(), fresh, vault.RestoreOptions{})
	for name, err := range map[string]error{"open": openAndClose(t.Context(), cfg), "init": create, "restore": restore} {
		if !errors.Is(err, vault.ErrNetworkFS) || !strings.Contains(err.Error(), "NFS") {
			t.Errorf("%s: %v, want ErrNetworkFS", name, err)
		}
	}
	if exists(fresh.Path) || exists(fresh.Path+".slots") {
		t.Error("something was made")
	}
	aside := cfg
	aside.Path += ".replaced-20260101T000000Z"
	write(t, aside.Path, read(t, cfg.Path))
	write(t, aside.Path+".slots", read(t, cfg.Path+".slots"))
	if err := openAndClose(t.Context(), aside); err != nil {
		t.Errorf("read only: %v", err)
	}
	cfg.AllowNetworkFS, fresh.AllowNetworkFS = true, true
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if _, err := vault.Create(t.Context(), fresh, opts); err != nil {
		t.Errorf("allowed: %v", err)
	}
}
