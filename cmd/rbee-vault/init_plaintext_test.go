package main

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/registry"
)

const legacySchema = `CREATE TABLE beehives (node_name TEXT PRIMARY KEY, ssh_host TEXT NOT NULL, ssh_port INTEGER NOT NULL DEFAULT 22, ssh_user TEXT NOT NULL, ssh_key_path TEXT, git_repo_url TEXT NOT NULL, git_branch TEXT NOT NULL, install_path TEXT NOT NULL, last_connected_unix INTEGER, status TEXT NOT NULL DEFAULT 'unknown', backends TEXT, devices TEXT);
INSERT INTO beehives VALUES ('hive-01', '192.0.2.1', 22, 'ops', NULL, 'https://example.org/r.git', 'main', '/opt/r', 1700000000, 'unknown', NULL, NULL)`

// unfinished makes a plaintext registry whose row is in its write-ahead log alone, as a killed
// daemon leaves it.
func unfinished(t *testing.T, path string) {
	t.Helper()
	made := filepath.Join(t.TempDir(), "beehives.db")
	db, err := sql.Open("sqlite3", made+"?_journal_mode=WAL")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(legacySchema); err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{"", "-wal"} {
		data, err := os.ReadFile(made + end)
		if err == nil {
			err = os.WriteFile(path+end, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestMoveDatabase: a database goes with its log, to no name that is taken.
func TestMoveDatabase(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	unfinished(t, from)
	if err := moveDatabase(from, to); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{from, from + "-wal"} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if set, err := registry.ReadLegacy(t.Context(), to, "/"); err != nil || len(set.Nodes) != 1 {
		t.Errorf("%d nodes, %v", len(set.Nodes), err)
	}
	unfinished(t, from)
	if err := moveDatabase(from, to); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if set, err := registry.ReadLegacy(t.Context(), from, "/"); err != nil || len(set.Nodes) != 1 {
		t.Errorf("after a failure: %d nodes, %v", len(set.Nodes), err)
	}
}

// TestInitFromPlaintextAtTheTerminal: init offers to take the plaintext registry's place.
func TestInitFromPlaintextAtTheTerminal(t *testing.T) {
	for _, answer := range []string{"n", "y"} {
		home := t.TempDir()
		path := filepath.Join(home, "fleet", "beehives.db")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		unfinished(t, path)
		recovery := filepath.Join(home, "r.txt")
		c := startOn(t, unix.Winsize{Row: 24, Col: 200}, []string{"HOME=" + home, "RBEE_VAULT_DB=" + path, "TERM=xterm"}, "init", "--no-keyring", "--recovery-out", recovery)
		c.expect(`is a registry in plaintext, with 1 nodes\. Put it aside as .*beehives.db.plaintext, make the vault in its place, and import it\? \[y/N\] $`)
		c.send(answer + "\n")
		code := c.exit()
		_, err := os.Stat(path + ".plaintext")
		if answer == "n" && (code != exitExists || !errors.Is(err, fs.ErrNotExist)) || answer == "y" && (code != exitOK || err != nil) {
			t.Errorf("%s: exit code %d, %v\n%s", answer, code, err, c.screen())
		}
		if answer == "n" {
			if set, err := registry.ReadLegacy(t.Context(), path, "/"); err != nil || len(set.Nodes) != 1 {
				t.Errorf("%d nodes, %v", len(set.Nodes), err)
			}
			continue
		}
		if code, out, _ := command(t, []string{"RBEE_VAULT_DB=" + path, "RBEE_VAULT_IDENTITY_FILE=" + recovery}, "node", "list", "--columns", "name"); code != exitOK || out != "hive-01\n" {
			t.Errorf("%d %q", code, out)
		}
	}
}
