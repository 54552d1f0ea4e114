package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
)

func TestSSHArgs(t *testing.T) {
	for line, want := range map[string]string{
		"hive-01":                       "hive-01",
		"hive-01 -v ls -F":              "hive-01",
		"ops@hive-01":                   "hive-01",
		"a@b@hive-01":                   "hive-01",
		"ssh://ops@hive-01:22/":         "hive-01",
		"-v -p 22 hive-01":              "hive-01",
		"-vp 22 hive-01":                "hive-01",
		"-vp22 hive-01":                 "hive-01",
		"-4 -l ops -L 1:h:2 hive-01 -N": "hive-01",
		"-x -oPermitLocalCommand=no -s -- h sftp": "h",
		"-- h -F":               "h",
		"-l -- h -F":            "h",
		"-o ControlMaster=no h": "h",
		"-oControlPath=none h":  "h",
		"-B b -b a -c c -D 1 -E l -e n -I p -i f -J j -m m -Q q -R 1 -W h:1 -w 1 -o Port=1 h": "h",
		"h -- -F": "h",
		"-V":      "",
		"":        "",
	} {
		p, err := parseSSHArgs(strings.Fields(line))
		if err != nil || p.node != want {
			t.Errorf("%q: %q, %v, want %q", line, p.node, err, want)
		}
	}
	for _, line := range []string{
		"-F x h", "-Fx h", "-vFx h", "h -F x", "-M h", "-vM h", "-S x h", "-O exit h", "h -O exit", "-P x h", "-p", "-~ h", "h -v -S x ls",
		"-oControlMaster=yes h", "-o ControlMaster=auto h", "-o controlpath=/x h", "-oControlPath=/x h", `-o "ControlPath"=/x h`, `-o"ControlPath=/x h`, "-o ControlPath=/x h", "h -o ControlPath=/x ls",
	} {
		if p, err := parseSSHArgs(strings.Fields(line)); !isUsage(err) {
			t.Errorf("%q: %q, %v, want a usage error", line, p.node, err)
		}
	}
	for _, line := range []string{"ControlPath /x", " \tControlPath  = /x", "CONTROLMASTER ask", `"ControlMaster" yes`, "\fControlPath=/x"} {
		if err := checkSSHSetting(line); !isUsage(err) {
			t.Errorf("%q: %v, want a usage error", line, err)
		}
	}
}

// wantEmpty: nothing is left in the runtime directory.
func (h *hives) wantEmpty() {
	h.t.Helper()
	if left, err := os.ReadDir(h.runtime); err != nil || len(left) > 0 {
		h.t.Errorf("the runtime directory has %v, %v", left, err)
	}
}

// ssh prepares rbee-vault ssh.
func (h *hives) ssh(args ...string) *exec.Cmd {
	cmd := exec.Command("rbee-vault", append([]string{"ssh"}, args...)...)
	cmd.Env = append(os.Environ(), h.env...)
	return cmd
}

func (h *hives) expectSSH(code int, says string, args ...string) {
	h.t.Helper()
	cmd := h.ssh(args...)
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), says) {
		h.t.Errorf("%q: exit code %d, want %d with %q:\n%s", args, got, code, says, out)
	}
}

// oneHive is a fleet of one node, hive-01, that is pinned and has a key.
func oneHive(t testing.TB, options ...string) (*hives, sshdtest.Server) {
	t.Helper()
	h := newHives(t)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"), options...)
	h.add("hive-01", "rbee@test", server, true)
	return h, server
}

// TestSSHCommand: the terminal, the pipes and the exit status are ssh's.
func TestSSHCommand(t *testing.T) {
	h, server := oneHive(t)
	h.add("hive-02", "rbee@test", server, false)
	h.must("node", "add", "hive-03", "--ssh-host", server.Host, "--ssh-user", server.User, "--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee")
	h.must("host-key", "trust", "--from-known-hosts", knownHosts(t, server.Host, server))

	cmd := h.ssh("hive-01", "cat; echo err >&2; exit 7")
	data := make([]byte, 100<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &out, &errs
	cmd.Run()
	if cmd.ProcessState.ExitCode() != 7 || sha256.Sum256(out.Bytes()) != sha256.Sum256(data) || errs.String() != "err\n" {
		t.Errorf("exit code %d, %d bytes, %q", cmd.ProcessState.ExitCode(), out.Len(), &errs)
	}
	h.wantEmpty()
	for _, row := range []struct {
		code int
		says string
		args []string
	}{
		{0, "in", []string{"hive-01", "echo in"}},
		{0, "in", []string{"-l", server.User, "hive-01", "-x", "--", "echo", "in"}},
		{0, "in", []string{"ssh://" + server.User + "@hive-01", "echo in"}},
		{0, "OpenSSH", []string{"-V"}},
		{0, "port " + server.Port, []string{"-G", "hive-01"}},
		{0, "in", []string{"--wait", "5s", "--quiet", "hive-01", "echo in"}},
		{0, "Usage:", []string{"--help"}},
		{exitNotFound, "node list", []string{"nobody"}},
		{exitNotFound, "rbee-vault check hive-02", []string{"hive-02"}},
		{exitNotFound, "ssh-key generate --node hive-03", []string{"hive-03"}},
		{exitUsage, "which node", []string{"-v"}},
		{exitUsage, "-F is not possible", []string{"-F", "none", "hive-01"}},
		{exitUsage, "-S is not possible", []string{"hive-01", "-S", "x"}},
		{exitUsage, "ControlPath is not possible", []string{"-o", "ControlPath=/x", "hive-01"}},
		{exitUsage, "unknown flag", []string{"--nonsense", "hive-01"}},
		{255, "Bad configuration option", []string{"-o", "Nonsense=1", "hive-01"}},
	} {
		h.expectSSH(row.code, row.says, row.args...)
		h.wantEmpty()
	}
	// Without a runtime directory of ours alone, or with one that ssh could not use.
	before, err := filepath.Glob("/dev/shm/rbee-vault-ssh-*")
	if err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(h.runtime, "a b")
	if err := os.Mkdir(odd, 0o700); err != nil {
		t.Fatal(err)
	}
	env := h.env
	for _, runtime := range []string{"", "relative", "/nonexistent", "/tmp", odd} {
		h.env = append(env, "XDG_RUNTIME_DIR="+runtime)
		h.expectSSH(0, "in", "hive-01", "echo in")
		h.expectSSH(0, "identityagent /dev/shm/rbee-vault-ssh-", "-G", "hive-01")
	}
	waitFor(t, "no new ones", func() bool { // somebody else's may be there for a while
		after, err := filepath.Glob("/dev/shm/rbee-vault-ssh-*")
		return err == nil && !slices.ContainsFunc(after, func(dir string) bool { return !slices.Contains(before, dir) })
	})
}

// knownHosts writes a known_hosts file with the host key of a server.
func knownHosts(t testing.TB, address string, s sshdtest.Server) string {
	t.Helper()
	public, err := os.ReadFile(s.PublicFiles[0])
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err == nil {
		err = os.WriteFile(file, []byte(address+" "+string(public)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSSHTerminal: ssh has the terminal, so that Ctrl-C goes to the remote side.
func TestSSHTerminal(t *testing.T) {
	h, _ := oneHive(t)
	ready := filepath.Join(h.home, "ready")
	c := startConsole(t, h.env, "ssh", "-tt", "hive-01", "tty; trap 'echo got it; exit 5' INT; touch "+ready+"; while :; do sleep 0.1; done")
	waitFor(t, "the remote shell", func() bool {
		_, err := os.Stat(ready)
		return err == nil
	})
	c.send("\x03")
	if code := c.exit(); code != 5 || !strings.Contains(c.stdout.String(), "/dev/pts/") || !strings.Contains(c.stdout.String(), "got it") {
		t.Errorf("exit code %d: %q, %s", code, &c.stdout, c.screen())
	}
	h.wantEmpty()
}

// TestSSHHolds: while ssh runs, no file that it gets has a secret, and a rotation does not
// wait for it. A signal for the command ends ssh, and then nothing is left.
func TestSSHHolds(t *testing.T) {
	h, _ := oneHive(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := startProcess(t, h.env, nil, w, "ssh", "hive-01", "echo in; exec sleep 60")
	w.Close()
	if line := make([]byte, 10); !readsIn(r, line) {
		t.Fatalf("%q, %s", line, &p.stderr)
	}
	files := 0
	err = filepath.WalkDir(h.runtime, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		files++
		data, err := os.ReadFile(path)
		if isSecret(string(data)) {
			t.Errorf("%s holds a private key", path)
		}
		return err
	})
	if err != nil || files != 3 {
		t.Errorf("%d files, %v", files, err)
	}
	h.must("rotate")
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.ends(); code != 255 && code != 128+15 {
		t.Errorf("exit code %d: %s", code, &p.stderr)
	}
	h.wantEmpty()
}

func readsIn(r *os.File, line []byte) bool {
	n, err := r.Read(line)
	return err == nil && string(line[:n]) == "in\n"
}

// TestSSHChangedHostKey: another host key than the pinned one is refused, also where an
// option asks ssh not to look.
func TestSSHChangedHostKey(t *testing.T) {
	h, _ := oneHive(t)
	other := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"), "LogLevel VERBOSE")
	h.must("node", "update", "hive-01", "--ssh-port", other.Port)
	for _, args := range [][]string{
		{"hive-01", "echo in"},
		{"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "hive-01", "echo in"},
		{"-o", "HostKeyAlias=other", "hive-01", "echo in"},
		{"-o", "HostKeyAlgorithms=rsa-sha2-512", "hive-01", "echo in"},
		{"-A", "hive-01", "echo in"},
	} {
		cmd := h.ssh(args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 255 || strings.Contains(string(out), "in\n") && !strings.Contains(string(out), "REMOTE HOST IDENTIFICATION") {
			t.Errorf("%q: exit code %d: %s", args, code, out)
		}
	}
	if strings.Contains(other.Log(), "Accepted publickey") {
		t.Error("somebody logged in")
	}
}

// TestSSHConfigOfOperator: nothing in the operator's own configuration reaches ssh. ssh
// takes the home directory from the system, so one is put in its place.
func TestSSHConfigOfOperator(t *testing.T) {
	h, server := oneHive(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(h.home, "config")
	text := fmt.Sprintf(`Host *
 ControlMaster auto
 ControlPersist yes
 ControlPath %[1]s/control-%%C
 ForwardAgent yes
 ProxyJump nowhere.invalid
 RemoteCommand touch %[1]s/remote-command
 IdentityFile %[1]s/id
 CertificateFile %[1]s/id-cert.pub
 HostName nowhere.invalid
 Port 1
 User nobody
 KnownHostsCommand /bin/touch %[1]s/known-hosts-command
 PermitLocalCommand yes
 LocalCommand touch %[1]s/local-command
 StrictHostKeyChecking no
 UserKnownHostsFile %[1]s/known_hosts
 IdentityAgent none
 SendEnv *
`, h.home)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(h.home)
	if err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) (string, error) {
		script := `mount -t tmpfs tmpfs "$0" && mkdir -m 700 "$0/.ssh" && cp "$1" "$0/.ssh/config" && shift && exec "$@"`
		cmd := exec.Command("unshare", append([]string{"--map-root-user", "--mount", "sh", "-c", script, me.HomeDir, config, program}, args...)...)
		cmd.Env = append(os.Environ(), h.env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("ssh", "-G", "hive-01"); err != nil || !strings.Contains(out, "nowhere.invalid") {
		t.Fatalf("stock ssh does not read the configuration: %v: %s", err, out)
	}
	out, err := run("rbee-vault", "ssh", "hive-01", "echo in; ssh-add -l; echo agent $SSH_AUTH_SOCK")
	if err != nil && !strings.HasPrefix(out, "in\n") || strings.Contains(out, "agent /") {
		t.Errorf("%v: %s", err, out)
	}
	g, err := run("rbee-vault", "ssh", "-G", "hive-01")
	for _, line := range []string{
		"hostname " + server.Host, "port " + server.Port, "user " + server.User, "controlmaster false", "forwardagent no", "stricthostkeychecking true",
		"globalknownhostsfile none", "hostkeyalias hive-01", "hostkeyalgorithms ssh-ed25519", "identitiesonly yes", "updatehostkeys false",
		"verifyhostkeydns false", "canonicalizehostname false", "preferredauthentications publickey",
	} {
		if !strings.Contains(g, line+"\n") {
			t.Errorf("ssh -G lacks %q", line)
		}
	}
	if err != nil || regexp.MustCompile(`(?m)^(controlpath|proxyjump|remotecommand|localcommand|knownhostscommand|certificatefile|sendenv)|nowhere|`+h.home).MatchString(g) {
		t.Errorf("ssh -G: %v\n%s", err, g)
	}
	if after, err := os.ReadDir(h.home); err != nil || len(after) != len(before) {
		t.Errorf("there are new files: %v, %v", after, err)
	}
}

// TestSSHLink: scp, sftp, git and rsync use the command, or a link to it named rbee-vault-ssh.
func TestSSHLink(t *testing.T) {
	h, _ := oneHive(t, "Subsystem sftp internal-sftp")
	exe, err := exec.LookPath("rbee-vault")
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(h.home, sshLink)
	from, to := filepath.Join(h.home, "from"), filepath.Join(h.home, "to")
	if err := os.Symlink(exe, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(from, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	git := filepath.Join(h.home, "repo")
	for name, args := range map[string][]string{
		"scp":           {"scp", "-q", "-S", link, from, "hive-01:" + to},
		"scp back":      {"scp", "-q", "-S", link, "hive-01:" + from, to},
		"old scp":       {"scp", "-q", "-O", "-S", link, from, "hive-01:" + to},
		"sftp":          {"sftp", "-q", "-S", link, "hive-01:" + from, to},
		"git":           {"sh", "-c", "git init -q --bare " + git + " && GIT_SSH_COMMAND='rbee-vault ssh' git ls-remote hive-01:" + git + " && cp " + from + " " + to},
		"rsync":         {"rsync", "-q", "-e", "rbee-vault ssh", from, "hive-01:" + to},
		"rsync -e link": {"rsync", "-q", "-e", link, "hive-01:" + from, to},
	} {
		os.Remove(to)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), h.env...)
		out, err := cmd.CombinedOutput()
		if got, e := os.ReadFile(to); err != nil || e != nil || string(got) != "text" {
			t.Errorf("%s: %v, %v: %s", name, err, e, out)
		}
		h.wantEmpty()
	}
}

// TestSSHThroughNodes: a node is reached through others, each with its own key and pins, and
// each login is in the log.
func TestSSHThroughNodes(t *testing.T) {
	h := newHives(t)
	var servers []sshdtest.Server
	for i, name := range []string{"way-in", "hive-01"} {
		h.must("ssh-key", "generate", "--comment", name)
		servers = append(servers, sshdtest.Start(t, h.must("ssh-key", "show", name), "LogLevel VERBOSE"))
		h.add(name, name, servers[i], true)
	}
	h.must("node", "update", "hive-01", "--jump", "way-in")
	if out, err := h.ssh("hive-01", "echo in").CombinedOutput(); err != nil || string(out) != "in\n" {
		t.Errorf("%v: %s", err, out)
	}
	if !strings.Contains(servers[0].Log(), "Accepted publickey") {
		t.Error("nobody went through the jump")
	}
	if out := h.must("audit", "list", "--action", "ssh-key.sign"); strings.Count(out, "login to way-in") != 1 || strings.Count(out, "login to hive-01") != 1 {
		t.Errorf("the log has\n%s", out)
	}
	// The configuration does not know a jump that is not the node's own.
	h.must("node", "update", "hive-01", "--jump", "")
	if out, err := h.ssh("-J", servers[0].User+"@"+servers[0].Addr(), "hive-01", "echo in").CombinedOutput(); err == nil || !strings.Contains(string(out), "Host key verification failed") {
		t.Errorf("a jump without pins: %v: %s", err, out)
	}
	h.must("host-key", "forget", "way-in", "--yes")
	h.must("node", "update", "hive-01", "--jump", "way-in")
	h.expectSSH(exitNotFound, "rbee-vault check way-in", "hive-01")
	h.wantEmpty()
}

// TestSSHExport: an exported ssh_config logs in by the agent, through a jump too.
func TestSSHExport(t *testing.T) {
	h := newHives(t)
	for _, name := range []string{"way-in", "hive-01", "hive-02"} {
		h.must("ssh-key", "generate", "--comment", name)
		server := sshdtest.Start(t, h.must("ssh-key", "show", name))
		h.add(name, name, server, name != "hive-02")
	}
	h.must("node", "update", "hive-01", "--jump", "way-in")
	h.startAgent()
	file := filepath.Join(h.home, "rbee.conf")
	export := func(args ...string) string {
		t.Helper()
		h.must(append([]string{"node", "export", "--format", "ssh-config"}, args...)...)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	login := func(node string) (string, error) {
		cmd := exec.Command("ssh", "-F", file, "-o", "BatchMode=yes", node, "echo in")
		cmd.Env = append(os.Environ(), h.env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	text := export("-o", file)
	if !strings.Contains(text, "\n# hive-02 is left out: no host key is pinned") || strings.Contains(text, "Host hive-02") || !strings.Contains(text, "IdentitiesOnly yes") {
		t.Errorf("the export:\n%s", text)
	}
	if out, err := login("hive-01"); err != nil || out != "in\n" {
		t.Errorf("%v: %s", err, out)
	}
	if text := export("-o", file, "--all"); !strings.Contains(text, "\nHost hive-02\n") {
		t.Errorf("the export:\n%s", text)
	}
	if out, err := login("hive-02"); err == nil || !strings.Contains(out, "Host key verification failed") {
		t.Errorf("%v: %s", err, out)
	}
	// Without a place for public keys.
	if err := os.WriteFile(file, []byte(h.must("node", "export", "--format", "ssh-config")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := login("hive-01"); err != nil || out != "in\n" {
		t.Errorf("%v: %s", err, out)
	}
	// A jump that ssh cannot log in to.
	h.must("host-key", "forget", "way-in", "--yes")
	if text := export("-o", file); strings.Contains(text, "\nHost ") || !strings.Contains(text, "# hive-01 is left out: it is reached through way-in, where no host key is pinned") {
		t.Errorf("the export:\n%s", text)
	}
}

// TestSSHJump: ssh goes through the hops, with the pins of each.
func TestSSHJump(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "rbee")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	key := filepath.Join(dir, "a key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	var servers []sshdtest.Server
	var hops []hop
	for i, name := range []string{"Hive", "hive"} {
		s := sshdtest.Start(t, string(public), "LogLevel VERBOSE")
		line, err := os.ReadFile(s.PublicFiles[i]) // ed25519, RSA
		if err != nil {
			t.Fatal(err)
		}
		var port uint16
		fmt.Sscan(s.Port, &port)
		fields := strings.Fields(string(line))
		servers = append(servers, s)
		hops = append(hops, hop{
			node: registry.Node{Name: name, SSHHost: s.Host, SSHPort: port, SSHUser: s.User, SSHKeyPath: key},
			pins: []registry.HostKey{{Node: name, Type: fields[0], PublicKey: fields[0] + " " + fields[1]}},
		})
	}
	run := func(want string) {
		t.Helper()
		config, err := writeSSHFiles(dir, filepath.Join(dir, "none.sock"), hops)
		if err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command("ssh", "-F", config, "hive", "echo in $SSH_CONNECTION").CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("want %q:\n%s", want, out)
		}
	}
	run(" " + servers[1].Port + "\n")
	if !strings.Contains(servers[0].Log(), "Accepted publickey") {
		t.Error("nobody went through the jump")
	}
	// The pins of the node are not those of its jump.
	hops[0].pins, hops[1].pins = hops[1].pins, hops[0].pins
	run("Host key verification failed")
}
