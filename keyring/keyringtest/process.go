package keyringtest

import (
	"bufio"
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// process is a daemon that ends with the test, or at the latest with the process of the test.
type process struct {
	cmd    *exec.Cmd
	output bytes.Buffer // its error output; read it only after ended is closed
	ended  chan struct{}
}

func newProcess(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v\nThis test needs a real keyring: apt-get install -y --no-install-recommends gnome-keyring dbus", err)
	}
	p := &process{cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stderr = &p.output
	endWithParent(p.cmd)
	return p
}

func (p *process) start(t testing.TB) {
	t.Helper()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
}

// startAndReadLine starts the process and returns the first line that it writes.
func (p *process) startAndReadLine(t testing.TB) string {
	t.Helper()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	if err != nil {
		p.kill()
		t.Fatalf("%s: %v\n%s", p.cmd.Path, err, p.output.String())
	}
	return strings.TrimSpace(line)
}

// kill ends the process. When it returns, the process is gone and reaped.
func (p *process) kill() {
	p.cmd.Process.Kill() // an error means that the process is already gone
	<-p.ended
}

// gone returns a channel that is closed when the process has ended. For no process the channel
// is nil, so it is never closed.
func (p *process) gone() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.ended
}
