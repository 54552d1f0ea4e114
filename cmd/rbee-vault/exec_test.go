package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// TestExec runs commands on nodes of a real sshd.
func TestExec(t *testing.T) {
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
	must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, must("ssh-key", "show", "rbee@test"))
	fingerprint := fingerprintOf(t, server.PublicFiles[0])
	for n := range 4 {
		name := fmt.Sprint("hive-0", n)
		must("node", "add", name, "--ssh-host", server.Host, "--ssh-port", server.Port, "--ssh-user", server.User,
			"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee", "--use-key", "rbee@test")
		if n < 3 {
			must("host-key", "trust", name, "--fingerprint", fingerprint)
		}
	}
	if out := must("exec", "hive-00", "hive-01", "--", "printf", `'a\tb\033[31m\nlast'`); strings.Count(out, "hive-00\ta       b") != 1 || strings.Count(out, "\tlast\n") != 2 || strings.Contains(out, "\x1b") {
		t.Errorf("output %q", out)
	}
	// One of them is not known, and does not keep the command from the others.
	code, stdout, stderr := command(t, env, "exec", "hive-*", "--", "echo", "on", "$HOME")
	if code != exitPartial || strings.Count(stdout, "\ton /") != 3 || !strings.Contains(stderr, "hive-03\t[") || !strings.Contains(stderr, "host key unknown") || !strings.Contains(stderr, "1 of 4") {
		t.Errorf("exit code %d, output %q, %s", code, stdout, stderr)
	}
	code, stdout, _ = command(t, env, "exec", "hive-00", "--json", "--", "echo out; echo err >&2; exit 3")
	var got executionJSON
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if code != exitPartial || got.Node != "hive-00" || got.ExitStatus == nil || *got.ExitStatus != 3 || got.Stdout != "out\n" || got.Stderr != "err\n" || got.Error != nil || got.Truncated {
		t.Errorf("exit code %d, %s", code, stdout)
	}
	code, _, stderr = command(t, env, "exec", "hive-00", "--timeout", "300ms", "--", "sleep 60")
	if code != exitPartial || !strings.Contains(stderr, "deadline exceeded") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	for want, args := range map[string][]string{
		"which command":  {"exec", "hive-00"},
		"which nodes":    {"exec", "--", "true"},
		"which command?": {"exec", "hive-00", "--"},
		"at least 1":     {"exec", "hive-00", "--parallel", "0", "--", "true"},
	} {
		if code, _, stderr := command(t, env, args...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
}

func fingerprintOf(t testing.TB, public string) string {
	t.Helper()
	out, err := exec.Command("ssh-keygen", "-lf", public).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[1]
}
