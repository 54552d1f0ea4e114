package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age/plugin"
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
	// On a busy machine the command has no time to read the vault, and is silent.
	want := func(shell string, args ...string) {
		t.Helper()
		waitFor(t, shell, func() bool {
			got := run(shell, args...)
			if strings.Contains(got, "other") {
				t.Errorf("%s: %q", shell, got)
			}
			return strings.Contains(got, "hive-01") && strings.Contains(got, "hive-02")
		})
	}
	want("bash", "--norc", "-c", `
		. /usr/share/bash-completion/bash_completion
		. <(rbee-vault completion bash)
		COMP_WORDS=(rbee-vault node show hive-) COMP_CWORD=3 COMP_LINE="rbee-vault node show hive-" COMP_POINT=26
		__start_rbee-vault
		printf '%s\n' "${COMPREPLY[@]}"`)
	want("fish", "--no-config", "-c", `rbee-vault completion fish | source; complete -C "rbee-vault node show hive-"`)

	c := startTerminal(t, unix.Winsize{Row: 24, Col: 80}, append(h.env, "TERM=xterm", "PS1=> "), "zsh", "-f", "-i")
	c.send("autoload -U compinit; compinit -u -d " + filepath.Join(h.home, "dump") + "; source <(rbee-vault completion zsh); compdef _rbee-vault rbee-vault; echo rea''dy\n")
	c.expect(`ready`)
	listed := regexp.MustCompile(`hive-01 *hive-02`)
	waitFor(t, "the nodes in zsh", func() bool {
		c.send("\x15rbee-vault node show hive-\t\t\x15print do''ne\n")
		c.expect(`done`)
		return listed.MatchString(c.screen())
	})
	c.send("exit\n")
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
		{[]string{"node", "list", "--columns", "na"}, "name\n"},
		{[]string{"node", "list", "--columns", "name,la"}, "name,last-contact\nname,labels\n"},
		{[]string{"slot", "list", "--sort", "per"}, "person\n"},
		{[]string{"config", "get", "ssh-"}, "ssh-port\nssh-user\n"},
		{[]string{"config", "set", "backup-target", ""}, "all\ndisk\n"},
		{[]string{"config", "set", "color", "n"}, "never\n"},
		{[]string{"config", "set", "db", ""}, ":0"},
	} {
		// On a busy machine the command has no time to read the vault, and is silent.
		waitFor(t, fmt.Sprintf("%q for %q", line.want, line.args), func() bool {
			got := complete(h.env, line.args...)
			if line.want == ":4" && strings.Contains(got, "hive") {
				t.Errorf("%q: %q", line.args, got)
			}
			return strings.Contains(got, line.want)
		})
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

// TestCompletionStartsNoPlugin: a plugin may ask for a PIN or a touch.
func TestCompletionStartsNoPlugin(t *testing.T) {
	h := newHives(t)
	h.must("node", "add", "hive-01", "--ssh-host", "192.0.2.1", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt")
	started := filepath.Join(h.home, "started")
	identity := filepath.Join(h.home, "plugin.txt")
	bin := filepath.Join(h.home, "bin")
	err := errors.Join(
		os.Mkdir(bin, 0o700),
		os.WriteFile(filepath.Join(bin, "age-plugin-marker"), []byte("#!/bin/sh\ntouch "+started+"\n"), 0o700),
		os.WriteFile(identity, []byte(plugin.EncodeIdentity("marker", []byte("x"))+"\n"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	env := append(h.env, "RBEE_VAULT_IDENTITY_FILE="+identity, "PATH="+bin+":"+os.Getenv("PATH"))
	if code, _, stderr := command(t, env, "node", "list"); code == exitOK {
		t.Errorf("opened: %s", stderr)
	}
	if err := os.Remove(started); err != nil {
		t.Fatalf("no plugin is started even where it should be: %v", err)
	}
	if code, stdout, _ := command(t, env, "__complete", "node", "show", ""); code != exitOK || strings.Contains(stdout, "hive-01") {
		t.Errorf("%d %s", code, stdout)
	}
	if _, err := os.Stat(started); err == nil {
		t.Error("the completion started a plugin")
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
