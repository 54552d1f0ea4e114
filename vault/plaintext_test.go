package vault_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestOpenPlaintextOfAnOpenFile: closing a file of an open database would drop this process's
// locks on it, and then another process would delete the log in use.
func TestOpenPlaintextOfAnOpenFile(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") }); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(cfg.Path+"-shm", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{cfg.Path, cfg.Path + "-wal", cfg.Path + "-shm", link} {
		if _, err := vault.OpenPlaintext(t.Context(), path); !errors.Is(err, vault.ErrAlreadyOpen) {
			t.Errorf("%s: %v, want ErrAlreadyOpen", path, err)
		}
	}
	// Another process opens and closes the database. The log stays, and later writes are still
	// there.
	cmd := child("write", childSpec(cfg, "child", "1"))
	if out, err := cmd.Output(); err != nil || string(out) != "child-0\n" {
		t.Fatalf("%q, %v", out, err)
	}
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-02") }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	v.Close()
	checkRows(t, cfg, []string{"hive-01", "child-0", "hive-02"})
}

// TestOpenPlaintextIsListed: while a plaintext database is open, nothing else opens the file.
func TestOpenPlaintextIsListed(t *testing.T) {
	path := filepath.Join(vaulttest.Dir(t), "beehives.db")
	if out, err := exec.Command("sqlite3", path, `CREATE TABLE beehives (name)`).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	db, err := vault.OpenPlaintext(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.OpenPlaintext(t.Context(), path); !errors.Is(err, vault.ErrAlreadyOpen) {
		t.Errorf("a second: %v, want ErrAlreadyOpen", err)
	}
	db.Close()
	again, err := vault.OpenPlaintext(t.Context(), path)
	if err != nil {
		t.Fatalf("after it was closed: %v", err)
	}
	again.Close()
	// An open that was refused does not claim the file.
	vaultPath := vaulttest.Config(t)
	if _, err := vault.OpenPlaintext(t.Context(), vaultPath.Path); !errors.Is(err, vault.ErrNotPlaintext) {
		t.Errorf("%v, want ErrNotPlaintext", err)
	}
	vaulttest.Open(t, vaultPath)
}

// TestLogTakenAway: a commit to a log that another program has removed or replaced returns an
// error.
func TestLogTakenAway(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := vaulttest.New(t)
			if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") }); err != nil {
				t.Fatal(err)
			}
			if err := take(v.Path() + "-wal"); err != nil {
				t.Fatal(err)
			}
			err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-02") })
			if !errors.Is(err, vault.ErrLogGone) || !errors.Is(err, vault.ErrUnknownOutcome) {
				t.Errorf("%v, want ErrLogGone and ErrUnknownOutcome", err)
			}
		})
	}
}

// TestDatabaseTakenAway: a handle makes no connection to another file that was put in the place
// of its own.
func TestDatabaseTakenAway(t *testing.T) {
	v := vaulttest.New(t)
	other := vaulttest.Config(t)
	before := read(t, other.Path)
	if err := os.Rename(other.Path, v.Path()); err != nil {
		t.Fatal(err)
	}
	err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") })
	if err == nil || !strings.Contains(err.Error(), "was replaced while it was open") {
		t.Errorf("%v, want an error that it was replaced", err)
	}
	if !bytes.Equal(read(t, v.Path()), before) {
		t.Error("the other database was changed")
	}
}

// TestPutPlaintextAsideUndone: a program that opens the database at the last moment would write
// to it unseen, so everything is undone.
func TestPutPlaintextAsideUndone(t *testing.T) {
	cfg := vaulttest.Config(t)
	vaulttest.Open(t, cfg)
	path := filepath.Join(filepath.Dir(cfg.Path), "old.db")
	if out, err := exec.Command("sqlite3", path, "CREATE TABLE t (x)").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var program *exec.Cmd
	at, err := vault.PutPlaintextAside(t.Context(), cfg, path, func(context.Context, *sql.Tx) error {
		// Behind the first look for such programs, and before the second one. The child opens
		// it: this process would drop the lock of SQLite.
		program = exec.Command("sh", "-c", `exec sleep 1000 <"$1"`, "sh", path)
		if err := program.Start(); err != nil {
			return err
		}
		await(t, func() bool { return len(durable.Openers(path)) > 0 })
		return nil
	})
	program.Process.Kill()
	program.Wait()
	if !errors.Is(err, vault.ErrLocked) || at != path {
		t.Errorf("%s, %v", at, err)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v", info, err)
	}
	left, err := filepath.Glob(path + "*")
	if err != nil || len(left) != 1 {
		t.Errorf("left: %q, %v", left, err)
	}
}
