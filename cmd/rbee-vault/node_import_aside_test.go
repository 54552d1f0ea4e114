package main

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/registry"
)

const legacySchema = `CREATE TABLE beehives (node_name TEXT PRIMARY KEY, ssh_host TEXT NOT NULL, ssh_port INTEGER NOT NULL DEFAULT 22, ssh_user TEXT NOT NULL, ssh_key_path TEXT, git_repo_url TEXT NOT NULL, git_branch TEXT NOT NULL, install_path TEXT NOT NULL, last_connected_unix INTEGER, status TEXT NOT NULL DEFAULT 'unknown', backends TEXT, devices TEXT);
INSERT INTO beehives VALUES ('hive-01', '192.0.2.1', 22, 'ops', NULL, 'https://example.org/r.git', 'main', '/opt/r', 1700000000, 'unknown', NULL, NULL)`

// TestPlaintextAside: after an import from the file at the default path, the vault stands there.
func TestPlaintextAside(t *testing.T) {
	for name, c := range map[string]struct {
		answer   string
		journal  string                                 // journal_mode; with WAL the row is in the log of a killed program alone
		before   func(t *testing.T, path string) func() // the answer
		code     int
		says     string
		imported bool // the default path stands for the vault
	}{
		"no":         {answer: "n", code: exitOK, says: `still exists, in plaintext`},
		"yes":        {answer: "y", code: exitOK, says: `is now a link to the vault, vault\.db`, imported: true},
		"log":        {answer: "y", journal: "WAL", code: exitOK, says: `beehives\.db\.plaintext still exists`, imported: true},
		"aside":      {answer: "y", before: taken, code: exitOK, says: `beehives\.db\.plaintext-2 still exists`, imported: true},
		"rest":       {answer: "y", before: interrupted, code: exitOK, says: `beehives\.db\.plaintext still exists`, imported: true},
		"persist":    {answer: "y", journal: "PERSIST", code: exitOK, says: `beehives\.db\.plaintext still exists`, imported: true},
		"idle":       {answer: "y", before: reader, code: exitPartial, says: `is open in sleep`},
		"connection": {answer: "y", journal: "WAL", before: connection, code: exitPartial, says: `the nodes are imported, but .*locked`},
		"row":        {answer: "y", before: anotherRow, code: exitPartial, says: `has changed since it was read`},
		"two names":  {answer: "y", before: secondName, code: exitPartial, says: `must be a file with one name`},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			dir := filepath.Join(home, ".rbee")
			path := filepath.Join(dir, "beehives.db")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			oldRegistry(t, path, c.journal)
			env := []string{"HOME=" + home, "RBEE_VAULT_IDENTITY_FILE=" + filepath.Join(home, "r.txt"), "TERM=xterm"}
			vaultPath := filepath.Join(dir, "vault.db")
			if code, _, stderr := command(t, env, "init", "--no-keyring", "--recovery-out", filepath.Join(home, "r.txt"), "--db", vaultPath); code != exitOK {
				t.Fatal(stderr)
			}
			console := startOn(t, unix.Winsize{Row: 24, Col: 300}, env, "node", "import", path, "--db", vaultPath)
			console.expect(`Stop every program that uses it first\. \[y/N\] $`)
			if c.before != nil {
				defer c.before(t, path)()
			}
			console.send(c.answer + "\n")
			console.expect(c.says)
			if code := console.exit(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if strings.Contains(console.screen(), "shred -u "+path+"\r\n") {
				t.Error("a command is named that would destroy the vault behind a link")
			}
			if code, out, stderr := command(t, env, "node", "list", "--columns", "name", "--db", vaultPath); code != exitOK || out != "hive-01\n" {
				t.Errorf("%d %q %s", code, out, stderr)
			}
			if c.imported {
				checkAside(t, env, path)
				return
			}
			if set, err := registry.ReadLegacy(t.Context(), path, home); err != nil || len(set.Nodes) == 0 {
				t.Errorf("%d nodes at the old path, %v", len(set.Nodes), err)
			}
			if _, err := os.Lstat(path + ".plaintext"); err == nil {
				t.Error("something is left aside")
			}
		})
	}
}

// checkAside checks that a default path stands for the vault, and that the registry aside is
// whole. Then the vault is destroyed, and nothing stands there.
func checkAside(t *testing.T, env []string, path string) {
	t.Helper()
	if code, out, stderr := command(t, env, "node", "list", "--columns", "name"); code != exitOK || out != "hive-01\n" {
		t.Errorf("%d %q %s", code, out, stderr)
	}
	aside, err := filepath.Glob(path + ".plaintext*")
	if err != nil || len(aside) == 0 {
		t.Fatal(err)
	}
	last := aside[len(aside)-1]
	if set, err := registry.ReadLegacy(t.Context(), last, "/"); err != nil || len(set.Nodes) != 1 {
		t.Errorf("%d nodes aside, %v", len(set.Nodes), err)
	}
	if info, err := os.Lstat(last); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if code, stdout, _ := command(t, env, "doctor"); !strings.Contains(stdout, last+" is a registry in plaintext") {
		t.Errorf("doctor: %d %s", code, stdout)
	}
	// By its own path: the link goes too.
	if code, stdout, stderr := command(t, env, "destroy", "--yes", "--db", filepath.Join(filepath.Dir(path), "vault.db")); code != exitOK || !strings.Contains(stdout, path+"\n") || !strings.Contains(stderr, "Stays, in plaintext: "+last) {
		t.Errorf("destroy: %d %s%s", code, stdout, stderr)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	for _, file := range left {
		if !strings.Contains(file, ".plaintext") && !strings.HasSuffix(file, ".lock") && !strings.HasSuffix(file, ".turn") && !strings.HasSuffix(file, ".write") && !strings.HasSuffix(file, ".anchor") {
			t.Errorf("left: %s", file)
		}
	}
}

// TestPlaintextAsideOnlyWhenWhole: where the vault has not all that the file has, nothing is offered.
func TestPlaintextAsideOnlyWhenWhole(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".rbee")
	path := filepath.Join(dir, "beehives.db")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	oldRegistry(t, path, "")
	env := []string{"HOME=" + home, "RBEE_VAULT_DB=" + filepath.Join(dir, "vault.db"), "RBEE_VAULT_IDENTITY_FILE=" + filepath.Join(home, "r.txt"), "TERM=xterm"}
	for _, args := range [][]string{
		{"init", "--no-keyring", "--recovery-out", filepath.Join(home, "r.txt")},
		{"node", "add", "hive-01", "--ssh-host", "192.0.2.9", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt"},
	} {
		if code, _, stderr := command(t, env, args...); code != exitOK {
			t.Fatal(stderr)
		}
	}
	c := startOn(t, unix.Winsize{Row: 24, Col: 300}, env, "node", "import", path, "--skip-existing")
	c.expect(`still exists, in plaintext`)
	if code := c.exit(); code != exitOK || strings.Contains(c.screen(), "Stop every program") {
		t.Errorf("%d %s", code, c.screen())
	}
}

// TestDanglingLink: where a link names no vault, it is said what is in the way.
func TestDanglingLink(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".rbee"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("vault.db", filepath.Join(home, ".rbee", "beehives.db")); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := command(t, []string{"HOME=" + home}, "init", "--no-keyring", "--recovery-out", filepath.Join(home, "r.txt"))
	if code != exitInvalid || !strings.Contains(stderr, "a link to a file that does not exist") {
		t.Errorf("%d %s", code, stderr)
	}
}

// oldRegistry makes a registry of the earlier program, with one node.
func oldRegistry(t *testing.T, path, journal string) {
	t.Helper()
	made, ends := filepath.Join(t.TempDir(), "made.db"), []string{""}
	switch journal {
	case "":
		journal = "DELETE"
	case "WAL":
		ends = append(ends, "-wal")
	default:
		ends = append(ends, "-journal")
	}
	db, err := sql.Open("sqlite3", made+"?_journal_mode="+journal)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() // after the copy: it would empty the log
	if _, err := db.Exec(legacySchema); err != nil {
		t.Fatal(err)
	}
	for _, end := range ends {
		data, err := os.ReadFile(made + end)
		if err == nil {
			err = os.WriteFile(path+end, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// taken puts another file at the name for the registry aside.
func taken(t *testing.T, path string) func() {
	if err := os.WriteFile(path+".plaintext", []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if data, err := os.ReadFile(path + ".plaintext"); string(data) != "mine" {
			t.Errorf("%q, %v", data, err)
		}
	}
}

// interrupted leaves what a kill before the exchange of names leaves.
func interrupted(t *testing.T, path string) func() {
	if err := os.Symlink("vault.db", path+".link"); err != nil {
		t.Fatal(err)
	}
	return func() {}
}

// reader is a program that has the registry open and does nothing.
func reader(t *testing.T, path string) func() {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.Stdin = f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// connection is a program that has the registry open as a database.
func connection(t *testing.T, path string) func() {
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`SELECT * FROM beehives`); err != nil {
		t.Fatal(err)
	}
	return func() { db.Close() }
}

// anotherRow is a program that has written to the registry since it was read.
func anotherRow(t *testing.T, path string) func() {
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE beehives SET status = 'online'`); err != nil {
		t.Fatal(err)
	}
	return func() {}
}

// secondName gives the registry a second name, by which another program may use it.
func secondName(t *testing.T, path string) func() {
	if err := os.Link(path, path+".hard"); err != nil {
		t.Fatal(err)
	}
	return func() {}
}
