package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// hives is a vault without a keyring, and a runtime directory of its own.
type hives struct {
	t       testing.TB
	env     []string
	runtime string // $XDG_RUNTIME_DIR
	home    string // where ~ is, without the vault's files in it
}

func newHives(t testing.TB) *hives {
	t.Helper()
	env, recovery := keylessVault(t)
	h := &hives{t: t}
	for _, dir := range []*string{&h.runtime, &h.home} {
		var err error
		if *dir, err = os.MkdirTemp("/dev/shm", "rbee"); err != nil { // short: it holds sockets
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(*dir) })
	}
	h.env = append(env, "RBEE_VAULT_IDENTITY_FILE="+recovery, "XDG_RUNTIME_DIR="+h.runtime, "SSH_AUTH_SOCK=")
	return h
}

func (h *hives) must(args ...string) string {
	h.t.Helper()
	code, stdout, stderr := command(h.t, h.env, args...)
	if code != exitOK {
		h.t.Fatalf("%v: exit code %d:\n%s", args, code, stderr)
	}
	return stdout
}

// expect runs a command that ends with this exit code and says something.
func (h *hives) expect(want int, message string, args ...string) {
	h.t.Helper()
	if code, stdout, stderr := command(h.t, h.env, args...); code != want || !strings.Contains(stdout+stderr, message) {
		h.t.Errorf("%v: exit code %d, want %d with %q:\n%s%s", args, code, want, message, stdout, stderr)
	}
}

// add adds a node on a server, which lets its key in.
func (h *hives) add(name, key string, s sshdtest.Server, pin bool) {
	h.t.Helper()
	h.must("node", "add", name, "--ssh-host", s.Host, "--ssh-port", s.Port, "--ssh-user", s.User,
		"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee", "--use-key", key)
	if pin {
		h.must("host-key", "trust", name, "--fingerprint", fingerprintOf(h.t, s.PublicFiles[0]))
	}
}

func (h *hives) socket() string { return filepath.Join(h.runtime, "rbee-vault", "agent.sock") }

// startAgent starts the agent and waits until it says where it listens.
func (h *hives) startAgent(args ...string) *process {
	h.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	p := startProcess(h.t, h.env, nil, w, append([]string{"--no-input", "agent"}, args...)...)
	w.Close()
	line := make([]byte, 4096)
	n, err := r.Read(line)
	h.t.Cleanup(func() { r.Close() })
	if err != nil || !regexp.MustCompile(`^SSH_AUTH_SOCK=\S+; export SSH_AUTH_SOCK;\n$`).Match(line[:n]) {
		p.cmd.Process.Kill()
		<-p.done
		h.t.Fatalf("the agent says %q, %v: %s", line[:n], err, &p.stderr)
	}
	return p
}

// login runs ssh with the agent at the socket, and no configuration. It has no pins: what
// is refused, the agent refuses.
func (h *hives) login(s sshdtest.Server, args ...string) (string, error) {
	cmd := exec.Command("ssh", append([]string{"-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentityFile=none", "-o", "LogLevel=ERROR", "-o", "IdentityAgent=" + h.socket(), "-p", s.Port, s.User + "@" + s.Host}, args...)...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *hives) wantLogin(s sshdtest.Server, in bool) {
	h.t.Helper()
	if out, err := h.login(s, "echo", "in"); (err == nil && out == "in\n") != in {
		h.t.Errorf("in: want %t, got %v: %s", in, err, out)
	}
}

// TestAgent: a key logs in to its pinned host and to no other, also after a rotation by
// another process. A signal ends the agent and removes the socket.
func TestAgent(t *testing.T) {
	h := newHives(t)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	authorized := h.must("ssh-key", "show", "rbee@test")
	pinned, stranger := sshdtest.Start(t, authorized), sshdtest.Start(t, authorized)
	h.add("hive-01", "rbee@test", pinned, true)
	h.add("hive-02", "rbee@test", stranger, false)
	h.expect(exitNotFound, "no agent answers", "agent", "status")

	p := h.startAgent()
	for path, want := range map[string]os.FileMode{filepath.Dir(h.socket()): 0o700, h.socket(): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	h.wantLogin(pinned, true)
	h.wantLogin(stranger, false)
	h.expect(exitExists, "another process answers", "agent")
	var status agentStatusJSON
	if err := json.Unmarshal([]byte(h.must("agent", "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Keys) != 1 || !status.Answers || fmt.Sprint(status.Keys[0].Nodes, status.Keys[0].Unpinned) != "[hive-01] [hive-02]" {
		t.Errorf("status %+v", status)
	}
	for range 2 {
		h.must("rotate")
		h.wantLogin(pinned, true)
		h.wantLogin(stranger, false)
	}
	if out := h.must("audit", "list", "--action", "ssh-key.sign"); strings.Count(out, "login to hive-01") != 3 {
		t.Errorf("the log has\n%s", out)
	}
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.ends(); code != exitOK {
		t.Errorf("exit code %d: %s", code, &p.stderr)
	}
	if _, err := os.Lstat(h.socket()); err == nil {
		t.Error("the socket is left")
	}
	h.wantLogin(pinned, false)

	p = h.startAgent()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.ends(); code != exitOK {
		t.Errorf("exit code %d: %s", code, &p.stderr)
	}
}

// TestAgentPassphrase: after a rotation the agent does not ask for the passphrase again.
func TestAgentPassphrase(t *testing.T) {
	h := newHives(t)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"))
	h.add("hive-01", "rbee@test", server, true)
	file := filepath.Join(h.home, "passphrase")
	if err := os.WriteFile(file, []byte("planted-passphrase\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("slot", "add", "passphrase", "--allow-weak", "--passphrase-file", file)
	c := startConsole(t, append(h.env, "RBEE_VAULT_IDENTITY_FILE="), "agent")
	c.expect(`Passphrase of the vault: $`)
	c.send("planted-passphrase\n")
	waitFor(t, "the agent", func() bool {
		code, _, _ := command(t, h.env, "agent", "status")
		return code == exitOK
	})
	h.wantLogin(server, true)
	h.must("rotate")
	h.wantLogin(server, true)
	c.send("\x03")
	if code := c.exit(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	if strings.Count(c.screen(), "Passphrase of the vault") != 1 {
		t.Errorf("it asked again:\n%s", c.screen())
	}
}

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: waited in vain", what)
		}
	}
}

// TestAgentConfirm: each signature is asked about, and the question names node, key and
// peer.
func TestAgentConfirm(t *testing.T) {
	h := newHives(t)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"))
	h.add("hive-01", "rbee@test", server, true)
	program, answer := filepath.Join(h.home, "askpass"), filepath.Join(h.home, "yes")
	script := fmt.Sprintf("#!/bin/sh\necho \"$SSH_ASKPASS_PROMPT: $1\" >> %s/questions\ntest -e %s\n", h.home, answer)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	h.env = append(h.env, "SSH_ASKPASS=/nonexistent/askpass")
	h.expect(exitInvalid, "needs a program", "agent", "--confirm")
	h.env = append(h.env, "SSH_ASKPASS="+program)
	h.startAgent("--confirm")
	h.wantLogin(server, false)
	if err := os.WriteFile(answer, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.wantLogin(server, true)
	asked, err := os.ReadFile(filepath.Join(h.home, "questions"))
	if want := regexp.MustCompile(`^(confirm: Log in to hive-01 as \S+\?\nKey SHA256:\S+\nAsked by pid \d+ \(\S*/ssh\)\n){2}$`); err != nil || !want.Match(asked) {
		t.Errorf("asked %q, %v", asked, err)
	}
}

// TestAgentLock: a locked agent signs nothing; the passphrase unlocks it, also after it
// has locked itself.
func TestAgentLock(t *testing.T) {
	h := newHives(t)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"))
	h.add("hive-01", "rbee@test", server, true)
	right, wrong := filepath.Join(h.home, "right"), filepath.Join(h.home, "wrong")
	for _, file := range []string{right, wrong} {
		if err := os.WriteFile(file, []byte(file+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.expect(exitUsage, "--lock-passphrase-file", "agent", "--lock-after", "1m")
	h.expect(exitUsage, "needs --lock-after", "agent", "--lock-passphrase-file", right)
	p := h.startAgent()
	h.must("agent", "lock", "--lock-passphrase-file", right)
	h.wantLogin(server, false)
	h.expect(exitError, "wrong", "agent", "unlock", "--lock-passphrase-file", wrong)
	h.must("agent", "unlock", "--lock-passphrase-file", right)
	h.wantLogin(server, true)
	h.expect(exitError, "not locked", "agent", "unlock", "--lock-passphrase-file", right)
	p.cmd.Process.Signal(os.Interrupt)
	p.ends()

	h.startAgent("--lock-after", "1ns", "--lock-passphrase-file", right)
	h.wantLogin(server, false)
	h.must("agent", "unlock", "--lock-passphrase-file", right)
}

// TestAgentUnbound: a key that is allowed signs files, and no other key does.
func TestAgentUnbound(t *testing.T) {
	h := newHives(t)
	for _, name := range []string{"one@test", "two@test"} {
		h.must("ssh-key", "generate", "--comment", name)
		if err := os.WriteFile(filepath.Join(h.home, name+".pub"), []byte(h.must("ssh-key", "show", name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.expect(exitNotFound, "ssh-key list", "agent", "--allow-unbound", "nobody")
	h.startAgent("--allow-unbound", "one@test")
	for name, want := range map[string]bool{"one@test": true, "two@test": false} {
		cmd := exec.Command("ssh-keygen", "-Y", "sign", "-n", "git", "-f", filepath.Join(h.home, name+".pub"))
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+h.socket())
		cmd.Stdin = strings.NewReader("data")
		if out, err := cmd.CombinedOutput(); (err == nil) != want {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// TestAgentInherited serves the socket that systemd made, and leaves it there.
func TestAgentInherited(t *testing.T) {
	h := newHives(t)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"))
	h.add("hive-01", "rbee@test", server, true)
	if err := os.Mkdir(filepath.Dir(h.socket()), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.socket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The shell has the id that the agent then has.
	cmd := exec.Command("sh", "-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec rbee-vault --no-input agent")
	cmd.Env = append(os.Environ(), h.env...)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	h.wantLogin(server, true)
	cmd.Process.Signal(syscall.SIGTERM)
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(h.socket()); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}

// giveWay has whoever holds the vault open close it, as a rotation does.
func giveWay(t *testing.T, db string) {
	t.Helper()
	turn, lock := durable.NewLock(db+".turn"), durable.NewLock(db+".lock")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := turn.Exclusive(ctx); err != nil {
		t.Fatal(err)
	}
	defer turn.Unlock()
	waitFor(t, "the vault", func() bool {
		free, err := lock.TryExclusive()
		if err != nil {
			t.Fatal(err)
		}
		return free
	})
	lock.Unlock()
}

// TestAgentKeyring: an agent that the keyring opened goes on through a rotation. While the
// keyring is locked it does not wait for a person, and says why it has no vault.
func TestAgentKeyring(t *testing.T) {
	session := keyringtest.Start(t)
	h := newHives(t)
	db := filepath.Join(h.home, "keyring", "v.db")
	recovery := filepath.Join(h.home, "r.txt")
	h.env = append(append(h.env, session.Env()...), "XDG_RUNTIME_DIR="+h.runtime, "RBEE_VAULT_IDENTITY_FILE=", "RBEE_VAULT_DB="+db)
	h.must("init", "--recovery-out", recovery)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"))
	h.add("hive-01", "rbee@test", server, true)
	c := startConsole(t, h.env, "agent") // it may prompt, but only at first
	waitFor(t, "the agent", func() bool { _, err := os.Stat(h.socket()); return err == nil })
	h.wantLogin(server, true)
	h.must("rotate")
	h.wantLogin(server, true)

	session.Lock(t)
	giveWay(t, db)
	begun := time.Now()
	h.wantLogin(server, false)
	if waited := time.Since(begun); waited > 30*time.Second {
		t.Errorf("it waited %v for a person", waited)
	}
	c.expect(`the vault does not open again: .*locked`)
	session.Restart(t)
	h.wantLogin(server, true)
	c.send("\x03")
	c.exit()
}
