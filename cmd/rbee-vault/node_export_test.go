package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// TestSSHExportIncluded: stock ssh with a configuration that includes the exported one, as the
// README says. Options for every host change nothing for a node, and the export changes
// nothing for another host.
func TestSSHExportIncluded(t *testing.T) {
	h := newHives(t)
	for _, name := range []string{"way-in", "hive-01"} {
		h.must("ssh-key", "generate", "--comment", name)
		h.add(name, name, sshdtest.Start(t, h.must("ssh-key", "show", name)), true)
	}
	h.must("node", "update", "hive-01", "--jump", "way-in")
	h.startAgent()
	file, own := filepath.Join(h.home, "rbee.conf"), filepath.Join(h.home, "id")
	h.must("node", "export", "--format", "ssh-config", "-o", file)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(own + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	other := sshdtest.Start(t, string(public))
	include := "Include " + file + "\n"
	before := fmt.Sprintf(`Host other
 HostName %[2]s
 Port %[3]s
 User %[4]s
 ProxyJump none
 ControlPath none
 RemoteCommand none
 KnownHostsCommand none
Host *
 ControlMaster auto
 ControlPersist yes
 ControlPath %[1]s/control-%%C
 ForwardAgent yes
 ProxyJump nowhere.invalid
 RemoteCommand touch %[1]s/remote-command
 IdentityFile %[1]s/id
 IdentityAgent none
 HostName nowhere.invalid
 Port 1
 User nobody
 KnownHostsCommand /bin/touch %[1]s/known-hosts-command
 PermitLocalCommand yes
 LocalCommand touch %[1]s/local-command
 VerifyHostKeyDNS yes
 CanonicalizeHostname yes
 StrictHostKeyChecking no
 UserKnownHostsFile %[1]s/known_hosts
`, h.home, other.Host, other.Port, other.User)
	run := func(config string, args ...string) string {
		t.Helper()
		path := filepath.Join(h.home, "config")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("ssh", append([]string{"-F", path, "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"}, args...)...)
		cmd.Env = append(os.Environ(), h.env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("ssh %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	for _, host := range []string{"other", "another"} {
		if without, with := run(before, "-G", host), run(include+before, "-G", host); with != without {
			t.Errorf("the export changes %s:\n%s\nfrom\n%s", host, with, without)
		}
	}
	if out := run(include+before, "other", "echo in"); out != "in\n" {
		t.Errorf("other: %s", out)
	}
	os.Remove(filepath.Join(h.home, "local-command")) // is right for this host
	// ssh has no way to take back an IdentityFile: it comes behind the node's own. A program
	// that nothing may run, and a lifetime of what is not shared, do not matter.
	idle := regexp.MustCompile(`(?m)^(identityfile .*/id|localcommand .*|controlpersist .*)\n`)
	for _, node := range []string{"hive-01", "way-in"} {
		alone, among := run(include, "-G", node), run(include+before, "-G", node)
		if alone, among := idle.ReplaceAllString(alone, ""), idle.ReplaceAllString(among, ""); alone != among {
			t.Errorf("Host * changes %s:\n%s\nfrom\n%s", node, among, alone)
		}
		if out := run(include+before, node, "echo in; ssh-add -l >&2 2>/dev/null; echo $SSH_AUTH_SOCK"); strings.TrimSpace(out) != "in" {
			t.Errorf("%s: %s", node, out)
		}
	}
	left, err := filepath.Glob(filepath.Join(h.home, "*"))
	if err != nil || regexp.MustCompile(`control-|-command`).MatchString(strings.Join(left, "\n")) {
		t.Errorf("there are new files: %v, %v", left, err)
	}
}
