package hive_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// TestAuthorize adds a key to a user's authorized_keys, in every state in which that can be.
func TestAuthorize(t *testing.T) {
	f := newFleet(t)
	other := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(otherKey(t))))
	line := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(otherKey(t)))) + " rbee@hive-01"
	blob := strings.Fields(line)[1]
	for _, row := range []struct {
		name   string
		before func(t *testing.T, ssh string) // makes ~/.ssh what it is
		added  bool
		fails  string
		want   string // of authorized_keys
		mode   os.FileMode
	}{
		{"no directory", func(*testing.T, string) {}, true, "", line + "\n", 0o600},
		{"no file", func(t *testing.T, dir string) { os.Mkdir(dir, 0o700) }, true, "", line + "\n", 0o600},
		{"another key", func(t *testing.T, dir string) { keysFile(t, dir, other+"\n", 0o640) }, true, "", other + "\n" + line + "\n", 0o640},
		{"no final newline", func(t *testing.T, dir string) { keysFile(t, dir, other, 0o600) }, true, "", other + "\n" + line + "\n", 0o600},
		{"there", func(t *testing.T, dir string) { keysFile(t, dir, "restrict ssh-ed25519 "+blob+" x", 0o600) }, false, "", "restrict ssh-ed25519 " + blob + " x", 0o600},
		{"commented out", func(t *testing.T, dir string) { keysFile(t, dir, "# "+line+"\n", 0o600) }, true, "", "# " + line + "\n" + line + "\n", 0o600},
		{"a link", func(t *testing.T, dir string) {
			keysFile(t, dir, other+"\n", 0o600)
			os.Rename(filepath.Join(dir, "authorized_keys"), filepath.Join(dir, "keys"))
			os.Symlink("keys", filepath.Join(dir, "authorized_keys"))
		}, true, "", other + "\n" + line + "\n", 0o600},
		{"a directory", func(t *testing.T, dir string) { os.MkdirAll(filepath.Join(dir, "authorized_keys"), 0o700) }, false, "not a regular file", "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			home := t.TempDir()
			row.before(t, filepath.Join(home, ".ssh"))
			server := sshdtest.Start(t, f.authorized, "SetEnv HOME="+home)
			node := strings.NewReplacer(" ", "-", "'", "").Replace(row.name)
			f.addServer(t, node, server, ssh.KeyAlgoED25519)
			conn, err := f.dialer().Dial(t.Context(), node)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			added, err := conn.Authorize(t.Context(), line)
			if row.fails != "" {
				if !errors.Is(err, hive.ErrNotAuthorized) || !strings.Contains(err.Error(), row.fails) {
					t.Errorf("%v, want %q", err, row.fails)
				}
			} else if err != nil || added != row.added {
				t.Errorf("%v, %v", added, err)
			}
			path := filepath.Join(home, ".ssh", "authorized_keys")
			info, err := os.Stat(path)
			if err == nil && row.mode != 0 && info.Mode() != row.mode {
				t.Errorf("mode %v", info.Mode())
			}
			if got, _ := os.ReadFile(path); string(got) != row.want {
				t.Errorf("authorized_keys:\n%s\nwant:\n%s", got, row.want)
			}
			entries, _ := os.ReadDir(filepath.Join(home, ".ssh"))
			for _, e := range entries {
				if strings.Contains(e.Name(), "authorized_keys.") {
					t.Errorf("%s is left behind", e.Name())
				}
			}
			if row.fails == "" { // again
				if again, err := conn.Authorize(t.Context(), line); err != nil || again {
					t.Errorf("again: %v, %v", again, err)
				}
			}
		})
	}
	for name, force := range map[string]string{"no-shell": "ForceCommand echo no", "cut": "ForceCommand echo rbee-authorized-keys 1"} {
		server := sshdtest.Start(t, f.authorized, force)
		f.addServer(t, name, server, ssh.KeyAlgoED25519)
		conn, err := f.dialer().Dial(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Authorize(t.Context(), line); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func keysFile(t *testing.T, dir, content string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(dir, "authorized_keys")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o600)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAuthorizeAnothersFile: a file of another user is left alone.
func TestAuthorizeAnothersFile(t *testing.T) {
	f := newFleet(t)
	home := t.TempDir()
	path := filepath.Join(home, ".ssh", "authorized_keys")
	keysFile(t, filepath.Dir(path), "# another's\n", 0o600)
	giveAway(t, path)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.addServer(t, "hive-01", sshdtest.Start(t, f.authorized, "SetEnv HOME="+home), ssh.KeyAlgoED25519)
	conn, err := f.dialer().Dial(t.Context(), "hive-01")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Authorize(t.Context(), string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(otherKey(t)))))
	if !errors.Is(err, hive.ErrNotAuthorized) || !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("%v, want it refused for its owner", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("authorized_keys: %v\n%s", err, after)
	}
}

// giveAway makes a file another user's. A user who is not root gets a link to one of root's.
func giveAway(t *testing.T, path string) {
	t.Helper()
	err := os.Chown(path, 1, 1)
	if err != nil {
		err = errors.Join(os.Remove(path), os.Symlink("/etc/hosts", path))
	}
	if err != nil {
		t.Fatal(err)
	}
}
