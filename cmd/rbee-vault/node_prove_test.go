package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// addArgs are the arguments of node add for a server.
func addArgs(name string, s sshdtest.Server, more ...string) []string {
	return append([]string{"node", "add", name, "--ssh-host", s.Host, "--ssh-port", s.Port, "--ssh-user", s.User,
		"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee"}, more...)
}

// wantNoNode: nothing of a node was stored.
func (h *hives) wantNoNode(name string) {
	h.t.Helper()
	h.expect(exitNotFound, "", "node", "show", name)
}

// TestNodeAddCheck: a node is added only if it is online, by its key and a host key that the
// operator accepted.
func TestNodeAddCheck(t *testing.T) {
	h := newHives(t)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"))
	strict := sshdtest.Start(t, "")
	pin := fingerprintOf(t, server.PublicFiles[0])

	h.expect(exitError, "--pin "+pin, addArgs("hive-01", server, "--use-key", "rbee@test", "--check")...)
	h.expect(exitError, "host key unknown", addArgs("hive-01", server, "--use-key", "rbee@test", "--check", "--yes")...)
	h.expect(exitError, "host key unknown", addArgs("hive-01", server, "--use-key", "rbee@test", "--check", "--pin", fingerprintOf(t, strict.PublicFiles[0]))...)
	h.wantNoNode("hive-01")
	h.expect(exitError, "permission denied", addArgs("hive-02", strict, "--use-key", "rbee@test", "--check", "--accept-new")...)
	h.expect(exitError, "leave out --check", append(addArgs("hive-02", server, "--use-key", "rbee@test", "--check", "--accept-new"), "--ssh-port", "1")...)
	h.wantNoNode("hive-02")
	if out := h.must("host-key", "list"); strings.Contains(out, "SHA256") {
		t.Errorf("pinned: %s", out)
	}

	h.expect(exitOK, "added hive-01", addArgs("hive-01", server, "--use-key", "rbee@test", "--check", "--pin", pin)...)
	if out := h.must("node", "show", "hive-01", "--json"); !strings.Contains(out, `"status":"online"`) || strings.Contains(out, `"last_connected_unix":null`) {
		t.Errorf("%s", out)
	}
	h.expect(exitOK, "online", "check", "hive-01")
	h.expect(exitExists, "node update", addArgs("hive-01", server, "--use-key", "rbee@test", "--check", "--accept-new")...)

	// Through a jump, and with a key that comes from a file.
	key := filepath.Join(h.home, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	inner := sshdtest.Start(t, string(public))
	h.expect(exitOK, "added hive-03", addArgs("hive-03", inner, "--import-key", key, "--jump", "hive-01", "--check", "--accept-new")...)
	h.must("host-key", "forget", "hive-01", "--yes")
	h.expect(exitError, "host-key trust hive-01", addArgs("hive-04", inner, "--import-key", key, "--jump", "hive-01", "--check", "--accept-new")...)
	h.wantNoNode("hive-04")

	for _, args := range [][]string{{"--check", "--generate-key"}, {"--install"}, {"--check", "--install", "--generate-key"}, {"--pin", pin}, {"--password", "--check"}} {
		h.expect(exitUsage, "--", addArgs("hive-05", server, args...)...)
	}
	// On a terminal it is asked, and no means no.
	c := startConsole(t, h.env, addArgs("hive-05", server, "--use-key", "rbee@test", "--check")...)
	c.expect(`shall it be pinned`)
	c.send("no\n")
	if code := c.exit(); code != exitError {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	h.wantNoNode("hive-05")
	c = startConsole(t, h.env, addArgs("hive-05", server, "--use-key", "rbee@test", "--check")...)
	c.expect(`shall it be pinned`)
	c.send("yes\n")
	if code := c.exit(); code != exitOK || !strings.Contains(c.screen(), pin) {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
}

// TestNodeAddInstall: the operator's own access lets the new key in; without it nothing is
// stored.
func TestNodeAddInstall(t *testing.T) {
	h := newHives(t)
	dir := t.TempDir()
	key, home := filepath.Join(dir, "key"), filepath.Join(dir, "home")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	own, err := os.ReadFile(key + ".pub")
	if err == nil {
		err = os.MkdirAll(filepath.Join(home, ".ssh"), 0o700)
	}
	authorized := filepath.Join(home, ".ssh", "authorized_keys")
	if err == nil {
		err = os.WriteFile(authorized, own, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	server := sshdtest.Start(t, "", "AuthorizedKeysFile "+authorized, "SetEnv HOME="+home)
	h.expect(exitError, "ssh-add", addArgs("hive-01", server, "--generate-key", "--install", "--accept-new")...)
	h.wantNoNode("hive-01")
	if out := h.must("ssh-key", "list"); strings.Contains(out, "SHA256") {
		t.Errorf("a key is left: %s", out)
	}
	h.expect(exitOK, "hive-01 accepts its key", addArgs("hive-01", server, "--generate-key", "--install", "--accept-new", "--ssh-key", key)...)
	h.expect(exitOK, "hive-01\ton", "exec", "hive-01", "--", "echo", "on")
	if data, err := os.ReadFile(authorized); err != nil || strings.Count(string(data), "ssh-ed25519") != 2 {
		t.Errorf("%s, %v", data, err)
	}

	// A server that reads another file: what was stored is said, and how to go on.
	elsewhere := sshdtest.Start(t, string(own), "SetEnv HOME="+filepath.Join(dir, "unread"))
	if err := os.Mkdir(filepath.Join(dir, "unread"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.expect(exitPartial, "Again: rbee-vault ssh-key install hive-02", addArgs("hive-02", elsewhere, "--generate-key", "--install", "--accept-new", "--ssh-key", key)...)
	h.must("node", "show", "hive-02")
}
