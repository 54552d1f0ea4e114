package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// TestSSHKeyInstall puts the vault's key on a node by the access that the operator has.
func TestSSHKeyInstall(t *testing.T) {
	env, recovery := keylessVault(t)
	env = append(env, "RBEE_VAULT_IDENTITY_FILE="+recovery, "SSH_AUTH_SOCK=")
	expect := func(want int, message string, env []string, args ...string) {
		t.Helper()
		if code, stdout, stderr := command(t, env, args...); code != want || !strings.Contains(stdout+stderr, message) {
			t.Errorf("%v: exit code %d, want %d with %q:\n%s%s", args, code, want, message, stdout, stderr)
		}
	}
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
	elsewhere := sshdtest.Start(t, string(own), "SetEnv HOME="+filepath.Join(dir, "unread")) // reads another file than ~/.ssh/authorized_keys
	if err := os.Mkdir(filepath.Join(dir, "unread"), 0o700); err != nil {
		t.Fatal(err)
	}
	add := func(name string, s sshdtest.Server, more ...string) {
		expect(exitOK, "", env, append([]string{"node", "add", name, "--ssh-host", s.Host, "--ssh-port", s.Port, "--ssh-user", s.User,
			"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee"}, more...)...)
		expect(exitOK, "", env, "host-key", "trust", name, "--fingerprint", fingerprintOf(t, s.PublicFiles[0]))
	}
	add("by-path", server, "--ssh-key", key)
	add("by-agent", server)
	add("elsewhere", elsewhere, "--ssh-key", key)
	add("keyless", server, "--ssh-key", key)
	add("by-agent-2", server)
	add("by-agent-3", server)
	for _, name := range []string{"by-path", "by-agent", "by-agent-2", "by-agent-3", "elsewhere"} {
		expect(exitOK, "", env, "ssh-key", "generate", "--node", name, "--comment", "rbee@"+name)
	}

	expect(exitOK, "by-path accepts its key now", env, "ssh-key", "install", "by-path")
	expect(exitOK, "by-path accepts its key already", env, "ssh-key", "install", "by-path")
	expect(exitOK, "by-path\ton", env, "exec", "by-path", "--", "echo", "on")
	// Without any access, and with the operator's agent.
	expect(exitPartial, "SSH_AUTH_SOCK", env, "ssh-key", "install", "by-agent")
	socket := filepath.Join(dir, "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		agent.Process.Kill()
		agent.Wait()
	})
	withAgent := append(env[:len(env):len(env)], "SSH_AUTH_SOCK="+socket)
	for {
		load := exec.Command("ssh-add", "-q", key)
		load.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if load.Run() == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("the agent does not come up")
		}
	}
	expect(exitOK, `"result":"installed"`, withAgent, "ssh-key", "install", "by-agent", "--json")
	expect(exitOK, "by-agent-3 accepts its key now", withAgent, "ssh-key", "install", "by-agent-2", "by-agent-3") // by one connection to the agent
	// The login decides, and the line is for whoever knows where it goes.
	expect(exitPartial, "Add this line to the authorized_keys of", env, "ssh-key", "install", "elsewhere")
	expect(exitPartial, "ssh-key generate --node keyless", env, "ssh-key", "install", "keyless", "by-path")
	expect(exitNotFound, "", env, "ssh-key", "install", "nobody")
	expect(exitUsage, "which nodes", env, "ssh-key", "install")
	expect(exitUsage, "cannot prompt", env, "ssh-key", "install", "by-path", "--password")

	lines, err := os.ReadFile(authorized)
	if err != nil || strings.Count(string(lines), "\n") != 5 || !strings.Contains(string(lines), " rbee@by-path\n") {
		t.Errorf("authorized_keys: %v\n%s", err, lines)
	}
}
