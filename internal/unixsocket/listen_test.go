package unixsocket

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestListen(t *testing.T) {
	dir := filepath.Join(shortDir(t), "new", "rbee")
	path := filepath.Join(dir, "agent")
	l, err := Listen(path)
	check(t, err)
	for name, mode := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, path: 0o600 | os.ModeSocket} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("beside another: %v", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the socket is gone: %v", err)
	} else {
		conn.Close()
	}
	// A killed agent leaves its socket.
	l.SetUnlinkOnClose(false)
	check(t, l.Close())
	l, err = Listen(path)
	check(t, err)
	check(t, l.Close())
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("closed, and the socket is still there: %v", err)
	}

	check(t, os.WriteFile(path, []byte("kept"), 0o600))
	if _, err := Listen(path); err == nil || errors.Is(err, ErrInUse) {
		t.Errorf("over a file: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "kept" {
		t.Errorf("the file is %q, %v", data, err)
	}
	check(t, os.Remove(path))
	check(t, os.Symlink(filepath.Join(dir, "target"), path))
	if _, err := Listen(path); err == nil {
		t.Error("over a symbolic link")
	}
	check(t, os.Remove(path))

	open := filepath.Join(shortDir(t), "open")
	check(t, os.Mkdir(open, 0o755))
	if _, err := Listen(filepath.Join(open, "agent")); err == nil {
		t.Error("in a directory that is open to others")
	}
	link := filepath.Join(shortDir(t), "link")
	check(t, os.Symlink(dir, link))
	if _, err := Listen(filepath.Join(link, "agent")); err == nil {
		t.Error("in a directory behind a symbolic link")
	}
}

// TestListenAtOnce: of many that begin at once beside a stale socket, one listens.
func TestListenAtOnce(t *testing.T) {
	for range 20 {
		path := filepath.Join(shortDir(t), "agent")
		l, err := Listen(path)
		check(t, err)
		l.SetUnlinkOnClose(false)
		check(t, l.Close())
		var wg sync.WaitGroup
		got := make(chan *net.UnixListener, 8)
		for range cap(got) {
			wg.Go(func() {
				l, err := Listen(path)
				if err == nil {
					got <- l
				} else if !errors.Is(err, ErrInUse) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(got) != 1 {
			t.Errorf("%d listen", len(got))
		}
		for len(got) > 0 {
			(<-got).Close()
		}
	}
}

// TestInherited runs this test again with the socket, as systemd does.
func TestInherited(t *testing.T) {
	if os.Getenv("TEST_INHERITED") != "" {
		two := func(name string) string {
			if name == "LISTEN_FDS" {
				return "2"
			}
			return os.Getenv(name)
		}
		if _, err := Inherited(two); err == nil {
			t.Fatal("took one of two sockets")
		}
		l, err := Inherited(os.Getenv)
		check(t, err)
		conn, err := l.Accept()
		check(t, err)
		conn.Write([]byte("inherited"))
		conn.Close()
		return
	}
	path := filepath.Join(shortDir(t), "agent")
	l, err := Listen(path)
	check(t, err)
	defer l.Close()
	file, err := l.File()
	check(t, err)
	defer file.Close()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 TEST_INHERITED=1 exec "$0" -test.run '^TestInherited$'`, os.Args[0])
	cmd.ExtraFiles = []*os.File{file}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	check(t, cmd.Start())
	conn, err := net.Dial("unix", path)
	check(t, err)
	defer conn.Close()
	check(t, conn.SetReadDeadline(time.Now().Add(time.Minute))) // where the other process gave up
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if string(answer[:n]) != "inherited" {
		t.Errorf("%q, %v", answer[:n], err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}

	env := func(pid, n string) func(string) string {
		return func(name string) string { return map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": n}[name] }
	}
	if l, err := Inherited(env("1", "1")); l != nil || err != nil {
		t.Errorf("the sockets of another process: %v, %v", l, err)
	}
	if l, err := Inherited(env("", "")); l != nil || err != nil {
		t.Errorf("no sockets: %v, %v", l, err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "socket")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
