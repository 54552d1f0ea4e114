package backup_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func TestMain(m *testing.M) {
	arg, spec := os.Getenv("RBEE_TEST_CHILD"), os.Getenv("RBEE_TEST_STEPS")
	merge, isMerge := strings.CutPrefix(arg, "merge|")
	switch {
	case isMerge:
		mergeWithLimit(merge)
	case arg != "":
		backUpForever(arg)
	case spec != "":
		stepsChild(spec)
	default:
		os.Exit(m.Run())
	}
}

// backUpForever makes backups until it is killed, and prints when it begins one.
func backUpForever(arg string) {
	path, text, _ := strings.Cut(arg, "|")
	identity, err := age.ParseX25519Identity(text)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	v, err := vault.Open(ctx, vault.Config{Path: path, Identities: []age.Identity{identity}})
	if err != nil {
		panic(err)
	}
	for {
		fmt.Println("backup")
		if _, err := backup.Create(ctx, v, backup.CreateOptions{Dir: filepath.Join(filepath.Dir(path), "backups")}); err != nil {
			panic(err)
		}
	}
}

// TestKilledBackups: after a SIGKILL, every file with a backup's name is a whole backup.
func TestKilledBackups(t *testing.T) {
	cfg, v := fleet(t)
	_, c := create(t, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "RBEE_TEST_CHILD="+cfg.Path+"|"+cfg.Identities[0].(*age.X25519Identity).String())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + round%4 {
			lines.Scan()
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.Path), "backups", "*.age"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Verify(t.Context(), bytes.NewReader(data), trusting(cfg, c)); err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	v = vaulttest.Open(t, cfg)
	records, err := backup.List(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if s := r.State(r.Copies[0], true); s != backup.FileIntact && s != backup.FileIncomplete && s != backup.FileStreamed {
			t.Errorf("backup %d is %s", r.Sequence, s)
		}
	}
	t.Logf("%d files of %d backups begun", len(files), len(records))
}
