// Package sshdtest runs a real sshd on the loopback address.
package sshdtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is an sshd to which the user of the test can log in.
type Server struct {
	Host string // 127.0.0.1
	Port string
	User string
	// PublicFiles are the files of its public host keys, ed25519 and RSA.
	PublicFiles []string

	log *lockedBuffer
}

// Log returns what the server has written to its log so far. It tells a client of a login before
// it logs it.
func (s Server) Log() string { return s.log.String() }

// Logs waits until the log has a text.
func (s Server) Logs(t testing.TB, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(s.Log(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("sshd never logged %q:\n%s", text, s.Log())
		}
	}
}

// Addr returns host and port.
func (s Server) Addr() string { return net.JoinHostPort(s.Host, s.Port) }

// Start starts an sshd that accepts the authorized keys. The sshd ends with the test. options
// are lines of its configuration. They come first, so they override the others.
func Start(t testing.TB, authorized string, options ...string) Server {
	t.Helper()
	return start(t, nil, authorized, options)
}

// start starts sshd below a program, with its arguments, or by itself.
func start(t testing.TB, below []string, authorized string, options []string) Server {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sshd") // not below t.TempDir, which only its user may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if me.Uid == "0" {
		// sshd as root requires its privilege separation directory.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := Server{Host: "127.0.0.1", User: me.Username}
	var config bytes.Buffer
	for _, option := range options {
		fmt.Fprintln(&config, option)
	}
	for _, kind := range []string{"ed25519", "rsa"} {
		key := filepath.Join(dir, "host_"+kind)
		if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		fmt.Fprintf(&config, "HostKey %s\n", key)
		s.PublicFiles = append(s.PublicFiles, key+".pub")
	}
	keys := filepath.Join(dir, "authorized_keys")
	if err := os.WriteFile(keys, []byte(authorized), 0o600); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&config, `AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
`, keys)
	file := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	line := append(below, sshd, "-D", "-e", "-f", file)
	for attempt := 1; ; attempt++ {
		s.Port = freePort(t)
		s.log = &lockedBuffer{}
		cmd := exec.Command(line[0], append(line[1:], "-o", "ListenAddress=127.0.0.1:"+s.Port)...)
		cmd.Stderr = s.log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		t.Cleanup(func() {
			cmd.Process.Kill()
			<-ended
		})
		switch {
		case s.listens(t, ended):
			return s
		case attempt == 3: // most likely somebody else got the port
			t.Fatalf("sshd ended:\n%s", s.Log())
		}
	}
}

// freePort returns a port that nobody else has. Somebody may get it until it is used.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// listens waits until the server says that it listens. It is false if the server has ended.
func (s Server) listens(t testing.TB, ended <-chan struct{}) bool {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(s.Log(), "Server listening on 127.0.0.1 port "+s.Port+"."); time.Sleep(10 * time.Millisecond) {
		select {
		case <-ended:
			return false
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("sshd does not listen:\n%s", s.Log())
		}
	}
	return true
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
