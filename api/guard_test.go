package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const listPath = "/v2/registry/beehives/list"

// TestGuardLoopback: who may ask over the loopback interface.
func TestGuardLoopback(t *testing.T) {
	token := strings.Repeat("t0ken-", 8)
	s := serve(t, func(cfg *Config) { cfg.Token = []byte(token) })
	check(t, s.registry.CreateNode(t.Context(), node("hive-01")))
	_, port, err := net.SplitHostPort(s.tcp)
	check(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(name string, wantStatus int, want string, header ...string) {
		t.Helper()
		status, got, _ := send(t, client, "GET", "http://"+s.tcp+listPath, "", header...)
		if status != wantStatus || !strings.Contains(got, want) || wantStatus != 200 && strings.Contains(got, "hive-01") {
			t.Errorf("%s: %d %s", name, status, got)
		}
	}
	ask("our own user", 200, "hive-01")
	ask("our own user, by name", 200, "hive-01", "Host", "localhost:"+port)
	ask("another name for this address", 421, "wrong_host", "Host", "attacker.example.org:"+port)
	ask("another port", 421, "wrong_host", "Host", "localhost:1")
	ask("a wrong token", 401, "INVALID_API_KEY", "Authorization", "Bearer "+token+"x")

	s.Server.uid++ // so that this process is another user's
	ask("another user", 401, `{"error":{"code":"MISSING_API_KEY","message":"Missing API key"}}`)
	ask("another user, wrong token", 401, `{"error":{"code":"INVALID_API_KEY","message":"Invalid API key"}}`, "Authorization", "Bearer wrong")
	ask("another user, another scheme", 401, "MISSING_API_KEY", "Authorization", "Basic "+token)
	ask("another user with the token", 200, "hive-01", "Authorization", "Bearer "+token)

	s.cfg.Token = nil
	ask("no token is set", 401, "INVALID_API_KEY", "Authorization", "Bearer "+token)
	ask("no token is set, an empty one", 401, "MISSING_API_KEY", "Authorization", "Bearer ")
}

// TestGuardSocket: who may ask over the unix socket.
func TestGuardSocket(t *testing.T) {
	s := serve(t, nil)
	if status, got, _ := s.do(t, "GET", listPath, ""); status != 200 {
		t.Errorf("our own user: %d %s", status, got)
	}
	s.Server.uid++
	if status, got, _ := s.do(t, "GET", listPath, ""); status != 403 || errorOf(t, got) != "refused" {
		t.Errorf("another user: %d %s", status, got)
	}
	s.cfg.UIDs = []int{os.Getuid()}
	if status, got, _ := s.do(t, "GET", listPath, ""); status != 200 {
		t.Errorf("a user that the operator named: %d %s", status, got)
	}
}

// TestAnotherUser asks as another user of this machine. Only root can become one.
func TestAnotherUser(t *testing.T) {
	if path := os.Getenv("TEST_ANOTHER_USER"); path != "" {
		for _, try := range []struct{ network, address string }{{"unix", filepath.Join(path, "socket")}, {"tcp", os.Getenv("TEST_ADDRESS")}} {
			conn, err := net.Dial(try.network, try.address)
			check(t, err)
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", listPath, os.Getenv("TEST_ADDRESS"))
			answer, _ := io.ReadAll(conn)
			fmt.Printf("%s: %.12s\n", try.network, answer)
		}
		return
	}
	s := serve(t, nil)
	dir, err := os.MkdirTemp("", "api")
	check(t, err)
	defer os.RemoveAll(dir)
	check(t, os.Chmod(dir, 0o755))
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	check(t, err)
	check(t, os.Chmod(filepath.Join(dir, "socket"), 0o666))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	defer func() { cancel(); <-done }()

	program := filepath.Join(dir, "test")
	data, err := os.ReadFile(os.Args[0])
	check(t, err)
	check(t, os.WriteFile(program, data, 0o755))
	cmd := exec.CommandContext(t.Context(), program, "-test.run", "^TestAnotherUser$")
	cmd.Env = append(os.Environ(), "TEST_ANOTHER_USER="+dir, "TEST_ADDRESS="+s.tcp)
	cmd.Dir = dir
	want := []string{"unix: HTTP/1.1 200", "tcp: HTTP/1.1 200"}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		want = []string{"unix: HTTP/1.1 403", "tcp: HTTP/1.1 401"}
	}
	out, err := cmd.CombinedOutput()
	for _, w := range want {
		if err != nil || !strings.Contains(string(out), w) {
			t.Errorf("want %q: %v\n%s", w, err, out)
		}
	}
}

// TestCrossOrigin: a page of another origin in the user's browser is refused, although the
// browser is the user's own process.
func TestCrossOrigin(t *testing.T) {
	s := serve(t, nil)
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://attacker.example.org"}} {
		status, got, _ := send(t, http.DefaultClient, "POST", "http://"+s.tcp+"/v2/registry/beehives/remove", `{"node_name":"hive-01"}`, header...)
		if status != 403 || errorOf(t, got) != "cross_origin" {
			t.Errorf("%s: %d %s", header, status, got)
		}
	}
}

// TestLimits: bodies, paths and methods that do not fit.
func TestLimits(t *testing.T) {
	s := serve(t, nil)
	if status, got, _ := s.do(t, "POST", "/v2/registry/beehives/add", strings.Repeat(" ", 10<<20)); status != 413 || errorOf(t, got) != "invalid" {
		t.Errorf("10 MB: %d %s", status, got)
	}
	for _, path := range []string{"/", "/v2", "/v2/registry/beehives/", "/v2/registry/beehives/a/b", "/v2/registry/beehives/..%2flist", "/v2/registry/beehives/%00", "/v2/registry/beehives/" + strings.Repeat("x", 300)} {
		if status, got, _ := s.do(t, "GET", path, ""); status != 404 && status != 400 {
			t.Errorf("%s: %d %s", path, status, got)
		}
	}
	if status, _, _ := s.do(t, "TRACE", listPath, ""); status != 404 {
		t.Errorf("TRACE: %d", status)
	}
}

// TestManyConnections: those over the limit are closed, and the others are served.
func TestManyConnections(t *testing.T) {
	s := serve(t, nil)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	before := runtime.NumGoroutine()
	for range maxConnections + 200 {
		conn, err := net.Dial("unix", s.socket)
		check(t, err)
		open = append(open, conn)
	}
	// The last one is over the limit: it is closed without a word.
	last := open[len(open)-1]
	last.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := last.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d, %v", n, err)
	}
	if n := runtime.NumGoroutine() - before; n > 2*maxConnections+50 {
		t.Errorf("%d goroutines", n)
	}
	fmt.Fprintf(open[0], "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if line, err := bufio.NewReader(open[0]).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("the first connection: %q, %v", line, err)
	}
	for _, c := range open {
		c.Close()
	}
	open = nil
	check(t, s.stop()) // returns when no goroutine is left
}

// TestSlowLoris: who does not send a request in time is closed.
func TestSlowLoris(t *testing.T) {
	s := serve(t, nil)
	conn, err := net.Dial("unix", s.socket)
	check(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	for range 600 {
		if _, err = fmt.Fprint(conn, "X"); err != nil {
			break
		}
		time.Sleep(50 * time.Millisecond) // the pace of the attack; the deadline ends it
	}
	if err == nil {
		t.Error("the connection is still open")
	}
}
