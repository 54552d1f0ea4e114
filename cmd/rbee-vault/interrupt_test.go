package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/internal/plugintest"
)

// process is a running command.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{}
}

// startProcess starts the command with these ends of pipes as its standard input and
// output; nil for none.
func startProcess(t testing.TB, env []string, stdin, stdout *os.File, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command("rbee-vault", args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = &p.stderr
	if stdin != nil {
		p.cmd.Stdin = stdin
	}
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// ends waits until the command ends, and returns its exit code, or -1 after a signal.
func (p *process) ends() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		p.t.Fatalf("%v did not end", p.cmd.Args[1:])
		return 0
	}
}

// feed writes to a pipe, and returns when the other end has read it all.
func feed(t *testing.T, w *os.File, text string) {
	t.Helper()
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if unread(t, w) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the pipe is not read")
		}
	}
}

// unread returns how many bytes a pipe holds.
func unread(t *testing.T, pipe *os.File) int {
	t.Helper()
	n, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInterrupted: the first signal ends every wait for input.
func TestInterrupted(t *testing.T) {
	env, recovery := keylessVault(t)
	dir := t.TempDir()
	fifo := func(name string) string {
		path := filepath.Join(dir, name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		args []string
		fifo string // is written to, instead of standard input
	}{
		"identity":           {args: []string{"node", "list", "--identity", "-"}},
		"passphrase":         {args: []string{"slot", "add", "passphrase", "--passphrase-file", "-", "--identity", recovery}},
		"nodes":              {args: []string{"node", "import", "-", "--identity", recovery}},
		"SSH key":            {args: []string{"ssh-key", "add", "-", "--identity", recovery}},
		"verify":             {args: []string{"backup", "verify", "-", "--identity", recovery}},
		"restore":            {args: []string{"restore", "-", "--db", filepath.Join(dir, "v.db"), "--no-keyring", "--identity", recovery}},
		"identity in a FIFO": {args: []string{"node", "list", "--identity", fifo("i")}, fifo: filepath.Join(dir, "i")},
		"nodes in a FIFO":    {args: []string{"node", "import", fifo("n"), "--identity", recovery}, fifo: filepath.Join(dir, "n")},
		"known_hosts":        {args: []string{"host-key", "trust", "--from-known-hosts", fifo("k"), "--identity", recovery}, fifo: filepath.Join(dir, "k")},
	} {
		for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			t.Run(name+" "+signal.String(), func(t *testing.T) {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				defer w.Close()
				p := startProcess(t, env, r, nil, test.args...)
				if test.fifo != "" {
					if w, err = os.OpenFile(test.fifo, os.O_WRONLY, 0); err != nil { // waits for its reader
						t.Fatal(err)
					}
					defer w.Close()
				}
				feed(t, w, "# one line\n")
				p.cmd.Process.Signal(signal)
				if code := p.ends(); code != exitInterrupted {
					t.Errorf("exit code %d:\n%s", code, p.stderr.String())
				}
			})
		}
	}
}

// TestInterruptedWhileOpening: a signal ends the wait for a writer of a FIFO.
func TestInterruptedWhileOpening(t *testing.T) {
	env, recovery := keylessVault(t)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for _, path := range []string{first, second} {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := startProcess(t, env, nil, nil, "node", "list", "--identity", first, "--identity", second)
	identity, err := os.ReadFile(recovery)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, identity, 0); err != nil { // returns after the command has opened it
		t.Fatal(err)
	}
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.ends(); code != exitInterrupted {
		t.Errorf("exit code %d:\n%s", code, p.stderr.String())
	}
}

// TestInterruptedWriting: nobody reads the output. One signal ends the command after a
// moment, two signals end it at once.
func TestInterruptedWriting(t *testing.T) {
	env, recovery := keylessVault(t)
	// More output than fits into a pipe of one page.
	add := []string{"node", "add", "--ssh-host", "h", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt/" + strings.Repeat("x", 1000), "--identity", recovery}
	for i := range 8 {
		if code, _, stderr := command(t, env, append(add, fmt.Sprintf("hive-%d", i))...); code != exitOK {
			t.Fatal(stderr)
		}
	}
	blocked := func(args ...string) *process {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
			t.Fatal(err)
		}
		p := startProcess(t, env, nil, w, args...)
		w.Close()
		for deadline := time.Now().Add(20 * time.Second); unread(t, r) < 4096; {
			if time.Now().After(deadline) {
				t.Fatalf("the pipe is not full: %s", p.stderr.String())
			}
		}
		return p
	}
	for _, args := range [][]string{{"audit", "export", "--identity", recovery}, {"completion", "bash"}} {
		p := blocked(args...)
		p.cmd.Process.Signal(os.Interrupt)
		if code := p.ends(); code != exitInterrupted {
			t.Errorf("%v: exit code %d:\n%s", args, code, p.stderr.String())
		}
	}
	p := blocked("audit", "export", "--identity", recovery)
	for again := time.Tick(20 * time.Millisecond); ; {
		p.cmd.Process.Signal(os.Interrupt)
		select {
		case <-p.done:
			if code := p.ends(); code != -1 {
				t.Errorf("exit code %d, and the second signal should have killed it:\n%s", code, p.stderr.String())
			}
			return
		case <-again:
		}
	}
}

// TestHungPlugin: an age plugin that never answers is killed when the command ends.
func TestHungPlugin(t *testing.T) {
	plugintest.Install(t)
	env, recovery := keylessVault(t)
	key := plugintest.NewKey(t, false)
	if code, _, stderr := command(t, env, "slot", "add", "recipient", key.Recipient, "--identity", recovery); code != exitOK {
		t.Fatal(stderr)
	}
	identity := filepath.Join(t.TempDir(), "plugin.txt")
	if err := os.WriteFile(identity, []byte(key.Hanging+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"node", "list", "--identity", identity},
		{"slot", "add", "recipient", key.HangingTo, "--identity", recovery},
	} {
		p := startProcess(t, env, nil, nil, args...)
		var plugin string
		for deadline := time.Now().Add(20 * time.Second); plugin == "" && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			stats, _ := filepath.Glob("/proc/[0-9]*/stat")
			for _, file := range stats {
				stat, _ := os.ReadFile(file)
				if strings.Contains(string(stat), "(age-plugin-") && strings.Contains(string(stat), ") S "+strconv.Itoa(p.cmd.Process.Pid)+" ") {
					plugin = file
				}
			}
		}
		if plugin == "" {
			t.Fatal("the plugin was not started")
		}
		t.Cleanup(func() { // for a test that fails
			if stat, err := os.ReadFile(plugin); err == nil && strings.Contains(string(stat), "(age-plugin-") {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(plugin)))
				syscall.Kill(pid, syscall.SIGKILL)
			}
		})
		p.cmd.Process.Signal(syscall.SIGTERM)
		if code := p.ends(); code != exitInterrupted {
			t.Errorf("exit code %d:\n%s", code, p.stderr.String())
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			stat, err := os.ReadFile(plugin)
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break // gone, or waiting for init
			}
			if time.Now().After(deadline) {
				t.Fatalf("the plugin still runs: %s", stat)
			}
		}
	}
}

// TestRestoreFromPipeLocksNothing: the vault is not locked while the backup comes in.
func TestRestoreFromPipeLocksNothing(t *testing.T) {
	env, recovery := keylessVault(t)
	file := filepath.Join(t.TempDir(), "b.age")
	if code, _, stderr := command(t, env, "backup", "-o", file, "--identity", recovery); code != exitOK {
		t.Fatal(stderr)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sheet, err := os.ReadFile(recovery)
	if err != nil {
		t.Fatal(err)
	}
	signer := regexp.MustCompile(`(?m)^# signer: (.*)$`).FindStringSubmatch(string(sheet))[1]
	p := startProcess(t, env, r, nil, "restore", "-", "--replace", "--no-keyring", "--signer", signer, "--identity", recovery)
	half := len(data) / 2
	feed(t, w, string(data[:half]))
	if code, _, stderr := command(t, env, "rotate", "--no-input", "--wait", "1s", "--identity", recovery); code != exitOK {
		t.Errorf("rotate: exit code %d:\n%s", code, stderr)
	}
	if _, err := w.Write(data[half:]); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if code := p.ends(); code != exitOK {
		t.Errorf("restore: exit code %d:\n%s", code, p.stderr.String())
	}
}
