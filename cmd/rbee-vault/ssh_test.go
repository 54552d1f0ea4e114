package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// TestSSH connects to a real sshd with stock ssh, an exported key, and host keys from the
// vault.
func TestSSH(t *testing.T) {
	env, recovery := keylessVault(t)
	env = append(env, "RBEE_VAULT_IDENTITY_FILE="+recovery)
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, env, args...)
		if code != exitOK {
			t.Fatalf("%v: exit code %d:\n%s", args, code, stderr)
		}
		return stdout
	}
	expect := func(want int, message string, args ...string) {
		t.Helper()
		if code, _, stderr := command(t, env, args...); code != want || !strings.Contains(stderr, message) {
			t.Errorf("%v: exit code %d, want %d with %q:\n%s", args, code, want, message, stderr)
		}
	}
	must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, must("ssh-key", "show", "rbee@test"))
	must("node", "add", "hive-01", "--ssh-host", server.Host, "--ssh-port", server.Port, "--ssh-user", server.User,
		"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee", "--use-key", "rbee@test")

	fingerprints := []string{}
	for _, file := range server.PublicFiles {
		out, err := exec.Command("ssh-keygen", "-lf", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		fingerprints = append(fingerprints, strings.Fields(string(out))[1])
	}
	expect(exitDamaged, fingerprints[0], "host-key", "trust", "hive-01", "--fingerprint", "SHA256:"+strings.Repeat("A", 43))
	for range 2 {
		for _, fingerprint := range fingerprints {
			must("host-key", "trust", "hive-01", "--fingerprint", fingerprint)
		}
	}
	if out := must("host-key", "list"); !strings.Contains(out, fingerprints[0]) || !strings.Contains(out, fingerprints[1]) {
		t.Errorf("host keys:\n%s", out)
	}
	key := filepath.Join(t.TempDir(), "key")
	must("ssh-key", "export", "rbee@test", "-o", key, "--yes")
	exe, err := exec.LookPath("rbee-vault")
	if err != nil {
		t.Fatal(err)
	}
	ssh := func() ([]byte, error) {
		cmd := exec.Command("ssh", "-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=none", "-o", "GlobalKnownHostsFile=none",
			"-o", "StrictHostKeyChecking=yes", "-o", fmt.Sprintf("KnownHostsCommand=%s --no-input host-key list --known-hosts", exe),
			"-p", server.Port, server.User+"@"+server.Host, "echo hello")
		cmd.Env = append(os.Environ(), env...)
		return cmd.CombinedOutput()
	}
	if out, err := ssh(); err != nil || strings.TrimSpace(string(out)) != "hello" {
		t.Errorf("ssh: %v: %s", err, out)
	}
	// By the alias of an exported ssh_config. The paths of the program and the database hold
	// text that ssh could take for tokens.
	config := filepath.Join(t.TempDir(), "rbee.conf")
	odd := filepath.Join(t.TempDir(), "100%h rbee")
	program, err := os.ReadFile(exe)
	if err == nil {
		err = os.Mkdir(odd, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(odd, "rbee-vault"), program, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"", ".slots"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(recovery), ".rbee", "beehives.db"+side))
		if err == nil {
			err = os.WriteFile(filepath.Join(odd, "v.db"+side), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	export := exec.Command(filepath.Join(odd, "rbee-vault"), "--db", filepath.Join(odd, "v.db"), "node", "export", "--format", "ssh-config", "-o", config)
	export.Env = append(os.Environ(), env...)
	if out, err := export.CombinedOutput(); err != nil {
		t.Fatalf("export: %v: %s", err, out)
	}
	alias := exec.Command("ssh", "-F", config, "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "GlobalKnownHostsFile=none", "hive-01", "echo hello")
	alias.Env = append(os.Environ(), env...)
	if out, err := alias.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "hello" {
		t.Errorf("ssh by alias: %v: %s", err, out)
	}
	must("host-key", "forget", "hive-01", "--yes")
	if out, err := ssh(); err == nil {
		t.Errorf("ssh trusts a host after its keys were forgotten: %s", out)
	}

	// A key from known_hosts, and a key that has changed.
	public, err := os.ReadFile(server.PublicFiles[0])
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(fmt.Sprintf("[%s]:%s %s", server.Host, server.Port, public)), 0o600); err != nil {
		t.Fatal(err)
	}
	must("host-key", "trust", "--from-known-hosts", known)
	if out, err := ssh(); err != nil {
		t.Errorf("ssh: %v: %s", err, out)
	}
	other := sshdtest.Start(t, "")
	must("node", "update", "hive-01", "--ssh-port", other.Port)
	out, err := exec.Command("ssh-keygen", "-lf", other.PublicFiles[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Fields(string(out))[1]
	expect(exitDamaged, fingerprints[0], "host-key", "trust", "hive-01", "--fingerprint", changed)
	must("host-key", "trust", "hive-01", "--fingerprint", changed, "--replace", fingerprints[0])
	expect(exitUsage, "", "host-key", "trust", "hive-01")
	expect(exitInvalid, "", "host-key", "trust", "hive-01", "--fingerprint", "nonsense")
	expect(exitNotFound, "", "host-key", "trust", "nobody", "--fingerprint", changed)
	expect(exitNotFound, "", "host-key", "forget", "nobody", "--yes")
}
