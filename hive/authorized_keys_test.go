package hive_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// account is a user's home on a node, with a connection.
type account struct {
	*hive.Conn
	home string
	file string // authorized_keys
}

func newAccount(t *testing.T, f fleet, node, content string, env ...string) account {
	t.Helper()
	home := t.TempDir()
	keysFile(t, filepath.Join(home, ".ssh"), content, 0o640)
	server := sshdtest.Start(t, f.authorized, "SetEnv "+strings.Join(append(env, "HOME="+home), " "))
	f.addServer(t, node, server, ssh.KeyAlgoED25519)
	conn, err := f.dialer().Dial(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return account{conn, home, filepath.Join(home, ".ssh", "authorized_keys")}
}

// want compares the file, its mode, and what is beside it.
func (a account) want(t *testing.T, content string) {
	t.Helper()
	got, err := os.ReadFile(a.file)
	if err != nil || string(got) != content {
		t.Errorf("%v, authorized_keys:\n%s\nwant:\n%s", err, got, content)
	}
	if info, err := os.Stat(a.file); err == nil && info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	entries, _ := os.ReadDir(filepath.Dir(a.file))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "authorized_keys.") {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}

func keyLine(t *testing.T) string {
	t.Helper()
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(otherKey(t))))
}

// TestReplaceKey adds a key beside another one, with its options, and removes the other.
func TestReplaceKey(t *testing.T) {
	f := newFleet(t)
	old, new, other := keyLine(t), keyLine(t), keyLine(t)
	blob := strings.Fields(old)[1]
	line := new + ` rbee@hive-01 \n "quoted"`
	notOld := "# " + old + "\n" + // none of these is a line of the old key
		`command="echo ` + old + ` \" x" ` + other + "\n" +
		other + " " + blob + "\n\nssh-ed25519\nno-pty x " + blob + "\n" + `from="10.0.0.0/8 ` + old + "\n"
	for name, row := range map[string]struct{ before, added, after string }{
		"plain":            {old + " me\n", line + "\n", line + "\n"},
		"options":          {`restrict,from="127.0.0.1,10.0.0.0/8" ` + old + "\n", `restrict,from="127.0.0.1,10.0.0.0/8" ` + line + "\n", `restrict,from="127.0.0.1,10.0.0.0/8" ` + line + "\n"},
		"quotes":           {"\t " + `environment="A=\" b  ssh-rsa ` + strings.Fields(other)[1] + `" 	` + old + "\n", `environment="A=\" b  ssh-rsa ` + strings.Fields(other)[1] + `" ` + line + "\n", `environment="A=\" b  ssh-rsa ` + strings.Fields(other)[1] + `" ` + line + "\n"},
		"no final newline": {other + "\n" + old, line + "\n", other + "\n" + line + "\n"},
		"several": {old + "\nno-pty " + old + "\n" + old + "\n" + other + "\n", line + "\nno-pty " + line + "\n",
			other + "\n" + line + "\nno-pty " + line + "\n"},
		"others": {notOld + old + "\n", line + "\n", notOld + line + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, f, "replace-"+strings.ReplaceAll(name, " ", "-"), row.before)
			// A file without the new key stays as it is.
			if _, err := a.Deauthorize(t.Context(), old, new); !errors.Is(err, hive.ErrNotRemoved) || !strings.Contains(err.Error(), "does not hold the new key") {
				t.Errorf("before the new key: %v", err)
			}
			a.want(t, row.before)
			holds := func(want bool) {
				t.Helper()
				if got, err := a.Authorizes(t.Context(), line); err != nil || got != want {
					t.Errorf("holds the new key: %v, %v", got, err)
				}
			}
			holds(false)
			for i := range 2 {
				if added, err := a.AuthorizeLike(t.Context(), line, old); err != nil || added != (i == 0) {
					t.Errorf("add: %v, %v", added, err)
				}
				a.want(t, strings.TrimSuffix(row.before, "\n")+"\n"+row.added)
			}
			for i := range 2 {
				if removed, err := a.Deauthorize(t.Context(), old, new); err != nil || removed != (i == 0) {
					t.Errorf("remove: %v, %v", removed, err)
				}
				a.want(t, row.after)
			}
			holds(true)
		})
	}

	t.Run("no line", func(t *testing.T) {
		a := newAccount(t, f, "no-line", notOld)
		if _, err := a.AuthorizeLike(t.Context(), line, old); !errors.Is(err, hive.ErrNotAuthorized) || !strings.Contains(err.Error(), "does not hold the old key") {
			t.Error(err)
		}
		if removed, err := a.Deauthorize(t.Context(), old, new); err != nil || removed {
			t.Error(removed, err)
		}
		a.want(t, notOld)
		os.Remove(a.file)
		if _, err := a.AuthorizeLike(t.Context(), line, old); !errors.Is(err, hive.ErrNotAuthorized) {
			t.Error(err)
		}
		if removed, err := a.Deauthorize(t.Context(), old, new); err != nil || removed {
			t.Error(removed, err)
		}
		if found, err := a.Authorizes(t.Context(), old); err != nil || found {
			t.Error(found, err)
		}
		if _, err := a.AuthorizeLike(t.Context(), line+"\n"+other, old); err == nil || !strings.Contains(err.Error(), "not one line") {
			t.Errorf("two lines: %v", err)
		}
		if _, err := a.Deauthorize(t.Context(), "x", new); !errors.Is(err, hive.ErrNotRemoved) {
			t.Errorf("no key: %v", err)
		}
	})

	t.Run("a link", func(t *testing.T) {
		a := newAccount(t, f, "link", old+"\n")
		keys := filepath.Join(a.home, "keys")
		if err := errors.Join(os.Rename(a.file, keys), os.Symlink("../keys", a.file)); err != nil {
			t.Fatal(err)
		}
		_, err1 := a.AuthorizeLike(t.Context(), line, old)
		_, err2 := a.Deauthorize(t.Context(), old, new)
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
		}
		a.want(t, line+"\n")
		if to, err := os.Readlink(a.file); err != nil || to != "../keys" {
			t.Errorf("%q, %v", to, err)
		}
	})

	t.Run("another's", func(t *testing.T) {
		a := newAccount(t, f, "anothers", old+"\n"+new+"\n")
		giveAway(t, a.file)
		before, err := os.ReadFile(a.file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Deauthorize(t.Context(), old, new); !errors.Is(err, hive.ErrNotRemoved) || !strings.Contains(err.Error(), "belongs to another user") {
			t.Error(err)
		}
		a.want(t, string(before))
	})
}

// TestReplaceKeyUnderChanges: a file that somebody else changes meanwhile, or that was not
// copied whole, is left alone. Commands of the node do this behind the script's back.
func TestReplaceKeyUnderChanges(t *testing.T) {
	f := newFleet(t)
	old, new, other := keyLine(t), keyLine(t), keyLine(t)
	for name, row := range map[string]struct{ command, text, reason string }{
		"changed": {"cksum", "/usr/bin/cksum \"$@\"\n[ -e \"$HOME/once\" ] || echo >>\"$HOME/.ssh/authorized_keys\" '" + other + "'\n>\"$HOME/once\"\n", "changed by somebody else"},
		"cut":     {"awk", "case \"$*\" in *' { print }'*|*' { print ('*) exec head -c 20 \"$HOME/.ssh/authorized_keys\";; esac\nexec /usr/bin/awk \"$@\"\n", "cannot be copied"},
		"full":    {"awk", "case \"$*\" in *' { print }'*|*' { print ('*) exit 2;; esac\nexec /usr/bin/awk \"$@\"\n", "disk is full"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, row.command), []byte("#!/bin/sh\n"+row.text), 0o755); err != nil {
				t.Fatal(err)
			}
			for what, do := range map[string]func(a account) error{
				"add": func(a account) error {
					_, err := a.AuthorizeLike(t.Context(), new, old)
					return err
				},
				"remove": func(a account) error {
					_, err := a.Deauthorize(t.Context(), old, new)
					return err
				},
			} {
				before := old + "\n"
				if what == "remove" {
					before = other + "\n" + before + new + "\n"
				}
				a := newAccount(t, f, name+"-"+what, before, "PATH="+bin+":/usr/bin:/bin")
				if err := do(a); err == nil || !strings.Contains(err.Error(), row.reason) {
					t.Errorf("%s: %v", what, err)
				}
				if name == "changed" {
					before += other + "\n"
				}
				a.want(t, before)
			}
		})
	}
	for name, force := range map[string]string{"rk-no-shell": "ForceCommand echo no", "rk-cut": "ForceCommand echo rbee-authorized-keys 1"} {
		server := sshdtest.Start(t, f.authorized, force)
		f.addServer(t, name, server, ssh.KeyAlgoED25519)
		conn, err := f.dialer().Dial(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Deauthorize(t.Context(), old, new); err == nil {
			t.Errorf("%s: no error", name)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := conn.AuthorizeLike(ended, new, old); err == nil {
			t.Errorf("%s: no error under an ended context", name)
		}
	}
}

// TestAuthorizedKeysAtOnce: no line is lost where several change one file at once, and a
// script that was killed is not waited for.
func TestAuthorizedKeysAtOnce(t *testing.T) {
	f := newFleet(t)
	old := keyLine(t)
	a := newAccount(t, f, "at-once", old+"\n")
	lock := a.file + ".rbee-vault"
	long := time.Now().Add(-2 * time.Minute)
	err := errors.Join(os.Mkdir(lock, 0o700), os.WriteFile(filepath.Join(lock, "keys.1"), nil, 0o600), os.Chtimes(lock, long, long))
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{keyLine(t), keyLine(t), keyLine(t), keyLine(t)}
	var group errgroup.Group
	for i, line := range lines {
		group.Go(func() error {
			var err error
			if i == 0 {
				_, err = a.Authorize(t.Context(), line)
			} else {
				_, err = a.AuthorizeLike(t.Context(), line, old)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(a.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range append(lines, old) {
		if strings.Count(string(got), line+"\n") != 1 {
			t.Errorf("%s is not once in\n%s", line, got)
		}
	}
	a.want(t, string(got))
}
