package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCompletion completes the names of nodes in the real shells.
func TestCompletion(t *testing.T) {
	h := newHives(t)
	for _, name := range []string{"hive-01", "hive-02", "other"} {
		h.must("node", "add", name, "--ssh-host", "192.0.2.1", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt")
	}
	run := func(shell string, args ...string) string {
		t.Helper()
		cmd := exec.Command(shell, args...)
		cmd.Env = append(os.Environ(), h.env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
		return string(out)
	}
	want := func(shell, got string, names ...string) {
		t.Helper()
		for _, name := range names {
			if !strings.Contains(got, name) {
				t.Errorf("%s: %q is missing in %q", shell, name, got)
			}
		}
		if strings.Contains(got, "other") {
			t.Errorf("%s: %q", shell, got)
		}
	}
	want("bash", run("bash", "--norc", "-c", `
		. /usr/share/bash-completion/bash_completion
		. <(rbee-vault completion bash)
		COMP_WORDS=(rbee-vault node show hive-) COMP_CWORD=3 COMP_LINE="rbee-vault node show hive-" COMP_POINT=26
		__start_rbee-vault
		printf '%s\n' "${COMPREPLY[@]}"`), "hive-01", "hive-02")
	want("fish", run("fish", "--no-config", "-c", `rbee-vault completion fish | source; complete -C "rbee-vault node show hive-"`), "hive-01", "hive-02")

	c := startTerminal(t, unix.Winsize{Row: 24, Col: 80}, append(h.env, "TERM=xterm", "PS1=> "), "zsh", "-f", "-i")
	c.send("autoload -U compinit; compinit -u -d " + filepath.Join(h.home, "dump") + "; source <(rbee-vault completion zsh); compdef _rbee-vault rbee-vault; echo rea''dy\n")
	c.expect(`ready`)
	c.send("rbee-vault node show hive-\t\t")
	c.expect(`hive-01 *hive-02`)
	c.send("\x15exit\n")
	c.exit()

	if code, _, stderr := command(t, h.env, "completion", "tcsh"); code != exitUsage || !strings.Contains(stderr, "bash, fish, zsh") {
		t.Errorf("tcsh: %d %s", code, stderr)
	}
}

// TestCompletionValues: each placeholder has its values, and where a question would come up
// there are none.
func TestCompletionValues(t *testing.T) {
	h := newHives(t)
	h.must("node", "add", "hive-01", "--ssh-host", "192.0.2.1", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt")
	h.must("node", "label", "hive-01", "rack=3")
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	h.must("slot", "add", "recovery", "--label", "off-site", "--out", filepath.Join(h.home, "off-site.txt"))
	h.must("backup", "target", "add", "disk", "dir:"+h.home)
	h.must("backup")
	complete := func(env []string, args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, env, append([]string{"__complete"}, args...)...)
		if code != exitOK {
			t.Errorf("%v: %d %s", args, code, stderr)
		}
		return stdout
	}
	for _, line := range []struct {
		args []string
		want string
	}{
		{[]string{"node", "show", ""}, "hive-01\n"},
		{[]string{"node", "show", "x"}, ":4"},
		{[]string{"node", "show", "hive-01", ""}, ":4"},
		{[]string{"node", "add", ""}, ":4"},
		{[]string{"node", "update", "hive-01", "--jump", ""}, "hive-01\n"},
		{[]string{"ssh-key", "assign", "rb"}, "rbee@test\n"},
		{[]string{"ssh-key", "assign", "rbee@test", ""}, "hive-01\n"},
		{[]string{"node", "list", "--where", "st"}, "status=online\n"},
		{[]string{"node", "list", "--where", "status=online,label.ra"}, "status=online,label.rack=3\n"},
		{[]string{"node", "label", "hive-01", "ra"}, "rack=3\n"},
		{[]string{"node", "label", "hive-01", "rack"}, "rack-\n"},
		{[]string{"slot", "remove", "off"}, "off-site\n"},
		{[]string{"slot", "remove", "key"}, "keyring\n"},
		{[]string{"backup", "drill", ""}, "1\n"},
		{[]string{"backup", "drill", "disk/"}, "disk/beehives-"},
		{[]string{"backup", "target", "remove", ""}, "disk\n"},
		{[]string{"audit", "list", "--action", "node"}, "node.\n"},
		{[]string{"restore", ""}, ":0"},
		{[]string{"completion", "b"}, "bash\n"},
	} {
		if got := complete(h.env, line.args...); !strings.Contains(got, line.want) || line.want == ":4" && strings.Contains(got, "hive") {
			t.Errorf("%q: %q, want %q", line.args, got, line.want)
		}
	}
	// A passphrase would be asked for: silence.
	locked := filepath.Join(h.home, "locked")
	if err := os.WriteFile(locked, []byte("age-encryption.org/v1\n-> scrypt "), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, identity := range []string{locked, filepath.Join(h.home, "missing")} {
		if got := complete(append(h.env, "RBEE_VAULT_IDENTITY_FILE="+identity), "node", "show", ""); !strings.HasPrefix(got, ":4") {
			t.Errorf("%s: %q", identity, got)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ word, want string }{
		{"lst", "list"}, {"nod", "node"}, {"ndoe", "node"}, {"hvie-01", "hive-01"}, {"zzz", ""}, {"", ""}, {"stat", "status"},
	} {
		if got := strings.Join(nearest(c.word, []string{"list", "node", "hive-01", "status", "restore", ""}), ","); got != c.want {
			t.Errorf("%q: %q, want %q", c.word, got, c.want)
		}
	}
}
