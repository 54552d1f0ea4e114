package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

const nodePassword = "planted-password"

// passwordHive is a vault, and a server that lets a user in by a password.
func passwordHive(t *testing.T, options ...string) (h *hives, server sshdtest.Server, authorized string, add func(name string, more ...string) []string) {
	t.Helper()
	h = newHives(t)
	home := t.TempDir()
	server = sshdtest.StartPassword(t, home, nodePassword, options...)
	return h, server, filepath.Join(home, ".ssh", "authorized_keys"), func(name string, more ...string) []string {
		return append([]string{"node", "add", name, "--ssh-host", server.Host, "--ssh-port", server.Port, "--ssh-user", server.User,
			"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee"}, more...)
	}
}

func (c *console) wantNoPassword() {
	c.t.Helper()
	if shown := c.screen() + c.stdout.String(); strings.Contains(shown, nodePassword) {
		c.t.Errorf("the terminal shows the password:\n%s", shown)
	}
}

// TestSSHKeyInstallByPassword: a password that is typed once puts the vault's key on nodes,
// where the server asks for it in either way. A wrong one changes nothing.
func TestSSHKeyInstallByPassword(t *testing.T) {
	for _, row := range []struct{ name, option string }{
		{"password", "KbdInteractiveAuthentication no"},
		{"PAM", "UsePAM yes\nPasswordAuthentication no"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, server, authorized, add := passwordHive(t, row.option)
			for _, name := range []string{"hive-01", "hive-02"} {
				h.must(add(name, "--generate-key")...)
				h.must("host-key", "trust", name, "--fingerprint", fingerprintOf(t, server.PublicFiles[0]))
			}
			c := startConsole(t, h.env, "ssh-key", "install", "hive-01", "--password")
			c.expect(`Password on the nodes: $`)
			c.send("planted-wrong\n")
			c.expect(`permission denied`)
			c.expect(`Your own access does not open it`)
			if code := c.exit(); code != exitPartial {
				t.Errorf("a wrong password: exit code %d:\n%s", code, c.screen())
			}
			if _, err := os.Stat(authorized); err == nil {
				t.Error("authorized_keys was written")
			}
			c = startConsole(t, h.env, "ssh-key", "install", "hive-*", "--password")
			c.expect(`Password on the nodes: $`)
			c.send(nodePassword + "\n")
			c.expect(`hive-01 accepts its key now`)
			c.expect(`hive-02 accepts its key now`)
			if code := c.exit(); code != exitOK {
				t.Errorf("exit code %d:\n%s\n%s", code, c.screen(), server.Log())
			}
			c.wantNoPassword()
			h.expect(exitOK, "hive-02\tin", "exec", "hive-*", "--", "echo", "in")
			lines, err := os.ReadFile(authorized)
			if err != nil || strings.Count(string(lines), "\n") != 2 {
				t.Errorf("authorized_keys: %v\n%s", err, lines)
			}
		})
	}
}

// TestNodeAddInstallByPassword: one command adds a node with a new key, and puts the key there.
func TestNodeAddInstallByPassword(t *testing.T) {
	h, server, _, add := passwordHive(t, "LogLevel VERBOSE")
	pin := fingerprintOf(t, server.PublicFiles[0])
	install := func(name string) *console {
		c := startConsole(t, h.env, add(name, "--generate-key", "--install", "--password", "--yes")...)
		c.expect(`Password on the node: $`)
		return c
	}
	wantNothing := func() {
		t.Helper()
		h.expect(exitNotFound, "", "node", "show", "hive-01")
		if out := h.must("ssh-key", "list"); out != "" {
			t.Errorf("keys: %s", out)
		}
	}
	h.expect(exitUsage, "cannot prompt", add("hive-01", "--generate-key", "--install", "--password", "--no-input")...)

	// A machine whose host key was not accepted never gets the password.
	c := install("hive-01")
	c.send(nodePassword + "\n")
	c.expect(`pinned\? \[y/N\] $`)
	c.send("n\n")
	if code := c.exit(); code != exitError || !strings.Contains(c.screen(), pin) {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	if log := server.Log(); strings.Contains(log, "assword") || strings.Contains(log, "keyboard-interactive") {
		t.Errorf("the server got a password:\n%s", log)
	}
	wantNothing()

	// A wrong password saves nothing.
	c = install("hive-01")
	c.send("planted-wrong\n")
	c.expect(`pinned\? \[y/N\] $`)
	c.send("y\n")
	if code := c.exit(); code != exitError || !strings.Contains(c.screen(), "hive-01 is not added") {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	waitFor(t, "a refused password in the server's log", func() bool { return strings.Contains(server.Log(), "Failed password") })
	wantNothing()

	c = install("hive-01")
	c.send(nodePassword + "\n")
	c.expect(`pinned\? \[y/N\] $`)
	c.send("y\n")
	c.expect(`hive-01 accepts its key`)
	if code := c.exit(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	c.wantNoPassword()
	h.expect(exitOK, "hive-01\tin", "exec", "hive-01", "--", "echo", "in")
}
