package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
)

func TestScanSSHConfig(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".ssh")
	if err := os.MkdirAll(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"config": "HOST a \"b\" # c\n\tHost = d\nHost *\nHost !e f?\nInclude d d/* none\nInclude ~/.ssh/tilde\nMatch host x\nHost a\nhost -x\n#Host y\n",
		"d/one":  "Host one\n",
		"d/two":  "Host two\nInclude d/one\n",
		"tilde":  "Host tilde\n",
		"loop":   "Host l\nInclude loop\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := registry.ScanSSHConfig(filepath.Join(dir, "config"), home)
	if err != nil || fmt.Sprint(found.Names) != "[a b d one two tilde]" {
		t.Errorf("%v, %v", found.Names, err)
	}
	reasons := fmt.Sprint(found.Skipped)
	for _, want := range []string{`"!e" is a pattern`, `"f?" is a pattern`, "Match", `"-x" cannot be`} {
		if !strings.Contains(reasons, want) {
			t.Errorf("nothing of %s in %s", want, reasons)
		}
	}
	elsewhere := t.TempDir()
	for name, text := range map[string]string{"config": "Host e\nInclude beside\n", "beside": "Host not-for-ssh\n"} {
		if err := os.WriteFile(filepath.Join(elsewhere, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err = registry.ScanSSHConfig(filepath.Join(elsewhere, "config"), home)
	if err != nil || fmt.Sprint(found.Names) != "[e]" || !strings.Contains(fmt.Sprint(found.Skipped), `ssh looks for Include "beside" in ~/.ssh`) {
		t.Errorf("an Include beside the file: %v, %v", found, err)
	}
	if _, err := registry.ScanSSHConfig(filepath.Join(dir, "loop"), home); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("a loop: %v, want ErrInvalid", err)
	}
	if _, err := registry.ScanSSHConfig(filepath.Join(dir, "none"), home); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestMatchExecIsSeen: the scan reports every line for which stock ssh runs a program.
func TestMatchExecIsSeen(t *testing.T) {
	home := t.TempDir()
	ran := filepath.Join(home, "ran")
	harmless := filepath.Join(home, "harmless")
	if err := os.WriteFile(harmless, []byte("Host included\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	included := filepath.Join(home, "included")
	if err := os.WriteFile(included, []byte("Match exec \"touch "+ran+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`Match exec "touch RAN"`:                    true,
		`MATCH EXEC "touch RAN"`:                    true,
		"  \tMatch\texec\t\"touch RAN\"":            true,
		`Match=exec "touch RAN"`:                    true,
		`Match exec="touch RAN"`:                    true,
		`"Match" exec "touch RAN"`:                  true,
		`Match "exec" "touch RAN"`:                  true,
		`Match e"x"ec "touch RAN"`:                  true,
		`Match host b,a exec "touch RAN"`:           true,
		`Match !exec "touch RAN"`:                   true,
		"Match all\r\nMatch exec \"touch RAN\"\r\n": true,
		"Include " + included:                       true,
		"Host b\nInclude " + included:               true, // ssh runs it for another name
		"Include ${HOME}/included":                  true,
		"Include %d/included":                       true,
		"Include " + harmless:                       false,
		`Match host a user exec-user`:               false,
		`# Match exec "touch RAN"`:                  false,
		`Host exec`:                                 false,
	} {
		os.Remove(ran)
		file := filepath.Join(home, "config")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "RAN", ran)+"\nHost a\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := registry.ScanSSHConfig(file, home)
		if err != nil || (len(found.Runs) > 0) != want {
			t.Errorf("%q: %v, %v", text, found.Runs, err)
		}
		if _, err := os.Stat(ran); err == nil {
			t.Errorf("%q: the scan ran it", text)
		}
		cmd := exec.Command("ssh", "-G", "-F", file, "--", "a")
		cmd.Env = append(os.Environ(), "HOME="+home)
		cmd.Run()
		if _, err := os.Stat(ran); err == nil && len(found.Runs) == 0 {
			t.Errorf("%q: ssh runs it, and the scan does not say so", text)
		}
	}
}

// TestIncludesAreBounded: the depth, number and size of included files have limits, and
// a FIFO is not opened.
func TestIncludesAreBounded(t *testing.T) {
	home := t.TempDir()
	path := func(name string) string { return filepath.Join(home, name) }
	for i := range 15 { // within the depth, but 2^15 files
		text := fmt.Sprintf("Include %[1]s\nInclude %[1]s\n", path(fmt.Sprint("f", i+1)))
		if err := os.WriteFile(path(fmt.Sprint("f", i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path("f15"), []byte("Host a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := []byte(strings.Repeat("# "+strings.Repeat("x", 1000)+"\n", 9<<10)) // 9 MB
	twice := []byte(fmt.Sprintf("Include %[1]s\nInclude %[1]s\n", path("large")))
	if err := errors.Join(os.WriteFile(path("large"), large, 0o600), os.WriteFile(path("twice"), twice, 0o600),
		os.WriteFile(path("long"), []byte("# "+strings.Repeat("x", 2<<20)+"\nHost a\n"), 0o600),
		os.WriteFile(path("waits"), []byte("Include "+path("fifo")+"\n"), 0o600), syscall.Mkfifo(path("fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f0", "twice", "long", "waits", "fifo"} {
		if _, err := registry.ScanSSHConfig(path(name), home); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if found, err := registry.ScanSSHConfig(path("large"), home); err != nil {
		t.Errorf("%v, %v", found, err)
	}
}

// TestWhatSSHKnowsAndANodeDoesNot: each setting that a node cannot have is reported.
func TestWhatSSHKnowsAndANodeDoesNot(t *testing.T) {
	home := t.TempDir()
	file := filepath.Join(home, "config")
	text := "Host jump\n ProxyJump bastion\nHost jumps\n ProxyJump a,b\nHost user\n ProxyJump ops@bastion\nHost command\n ProxyCommand nc %h %p\nHost alias\n HostKeyAlias other\nHost cert\n CertificateFile ~/.ssh/id-cert.pub\n" +
		"Host token\n IdentityFile ~/.ssh/%u\nHost end\n IdentityFile /k/%\nHost variable\n IdentityFile ${HOME}/k\nHost other\n IdentityFile ~nobody/k\nHost plain\n ProxyJump none\n IdentityFile ~/.ssh/id\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"jump": "", "jumps": "ProxyJump", "user": "ProxyJump", "command": "ProxyCommand", "alias": "HostKeyAlias", "cert": "CertificateFile", "token": "IdentityFile", "end": "IdentityFile", "variable": "IdentityFile", "other": "IdentityFile",
		"plain": ""} {
		out, err := exec.Command("ssh", "-G", "-F", file, name).Output()
		if err != nil {
			t.Fatal(err)
		}
		n, lost, err := registry.ParseSSHValues(bytes.NewReader(out), keyNode(name), home)
		if wantJump := map[string]string{"jump": "bastion"}[name]; n.ProxyJump != wantJump {
			t.Errorf("%s: jump %q, want %q", name, n.ProxyJump, wantJump)
		}
		if err != nil || want == "" && len(lost) > 0 || want != "" && (len(lost) != 1 || !strings.Contains(lost[0], want)) {
			t.Errorf("%s: %q, %v", name, lost, err)
		}
	}
}

// TestIdentityFileTokens: the tokens of an IdentityFile stand for what ssh puts there.
func TestIdentityFileTokens(t *testing.T) {
	home := t.TempDir()
	for value, want := range map[string]string{
		"~/id":                    "id",
		"~/%h-%n-%p-%r":           "h.example.org-hive-01-2222-ops",
		"%d/100%%":                "100%",
		"%d/%%h":                  "%h",
		filepath.Join(home, "%n"): "hive-01",
	} {
		want = filepath.Join(home, want)
		file := filepath.Join(home, "config")
		text := "Host hive-01\n HostName H.example.org\n User ops\n Port 2222\n IdentityFile /nowhere/%h\n IdentityFile " + value + "\n"
		for path, content := range map[string]string{file: text, want: "key"} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command("ssh", "-G", "-F", file, "hive-01").Output()
		if err != nil {
			t.Fatal(err)
		}
		n, lost, err := registry.ParseSSHValues(bytes.NewReader(out), keyNode("hive-01"), home)
		if err != nil || len(lost) > 0 || n.SSHKeyPath != want {
			t.Errorf("%s: %q, %q, %v; want %q", value, n.SSHKeyPath, lost, err, want)
		}
	}
}

// TestWriteSSHConfig: stock ssh reads back a node's values, with any characters.
func TestWriteSSHConfig(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, `a key with 100% "quotes" and #`)
	plain := keyNode("plain")
	odd := keyNode("odd")
	odd.SSHHost, odd.SSHPort, odd.SSHUser, odd.SSHKeyPath = "2001:db8::1", 2222, "ops@example.org", key
	sealed := registry.SSHHost{Node: keyNode("sealed"), InVault: true, PublicKey: filepath.Join(dir, "100% a.pub"), HostKeys: []registry.HostKey{{Type: "ssh-rsa"}, {Type: "ssh-ed25519"}}}
	opts := registry.SSHConfigOptions{
		KnownHostsCommand: []string{"/opt/100% rbee/rbee-vault", "--db", "/var/lib/a vault/b.db", "host-key", "list", "--known-hosts"},
		Agent:             filepath.Join(dir, "100% an agent.sock"),
	}
	file := filepath.Join(dir, "config")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := registry.WriteSSHConfig(f, []registry.SSHHost{{Node: plain}, {Node: odd}, sealed, {Node: keyNode("lacking"), Lacks: "no host key is pinned"}}, opts); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, want := range map[string][]string{
		"plain":   {"hostname 127.0.0.1", "port 22", "user ops"},
		"odd":     {"hostname 2001:db8::1", "port 2222", "user ops@example.org", "identitiesonly yes", "forwardagent no"},
		"sealed":  {"identitiesonly yes", "hostkeyalgorithms rsa-sha2-512,rsa-sha2-256,ssh-ed25519", "forwardagent no"},
		"lacking": {"hostname lacking", "identitiesonly no"},
	} {
		out, err := exec.Command("ssh", "-G", "-F", file, name).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh -G: %v: %s", err, out)
		}
		for _, line := range want {
			if !strings.Contains(string(out), line+"\n") {
				t.Errorf("%s lacks %q:\n%s", name, line, out)
			}
		}
	}

	odd.SSHKeyPath = "/keys/${HOME}"
	var b strings.Builder
	if err := registry.WriteSSHConfig(&b, []registry.SSHHost{{Node: odd}}, registry.SSHConfigOptions{KnownHostsCommand: []string{"/usr/bin/rbee-vault"}}); err != nil || strings.Contains(b.String(), "\n    IdentityFile") || !strings.Contains(b.String(), "# IdentityFile is left out") {
		t.Errorf("a key path that ssh expands: %v\n%s", err, b.String())
	}
	for name, opts := range map[string]registry.SSHConfigOptions{
		"a command": {KnownHostsCommand: []string{"/usr/bin/rbee-vault", "--db", "/${HOME}/b.db"}},
		"an agent":  {Agent: "/${HOME}/agent.sock"},
	} {
		if err := registry.WriteSSHConfig(&b, nil, opts); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s that ssh expands: %v, want ErrInvalid", name, err)
		}
	}
}

func FuzzScanSSHConfig(f *testing.F) {
	f.Add("Host a b\nInclude x\nMatch all\nHost=\"c\n")
	f.Fuzz(func(t *testing.T, text string) {
		home := t.TempDir()
		file := filepath.Join(home, "config")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := registry.ScanSSHConfig(file, home)
		if err != nil {
			return
		}
		for _, name := range found.Names {
			n := keyNode(name)
			if err := n.Validate(); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}

func FuzzReadNDJSON(f *testing.F) {
	f.Add(`{"node_name":"hive-09","ssh_host":"h","ssh_port":22,"ssh_user":"ops","ssh_key_path":null,"git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt","last_connected_unix":null,"status":"unknown","backends":null,"devices":null}`)
	f.Add(`{"node_name":"hive-09","ssh_host":"h","ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt","proxy_jump":"hive-01","note":"n","labels":{"rack":"3"}}`)
	f.Add("{}\n\nnull\n")
	f.Fuzz(func(t *testing.T, text string) {
		set, err := registry.ReadNDJSON(strings.NewReader(text))
		if err != nil && !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%v", err)
		}
		for _, n := range set.Nodes {
			if err := n.Validate(); err != nil {
				t.Errorf("%v", err)
			}
		}
	})
}
