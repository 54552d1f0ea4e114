package api

import (
	"bufio"
	"context"
	"errors"
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

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
)

const listPath = "/v2/registry/beehives/list"

// TestGuardLoopback: who may ask over the loopback interface.
func TestGuardLoopback(t *testing.T) {
	token := strings.Repeat("t0ken-", 8)
	withToken := func(cfg *Config) { cfg.Token = []byte(token) }
	ours := serve(t, withToken)
	others := serveAs(t, os.Getuid()+1, func(cfg *Config) {
		withToken(cfg)
		cfg.UIDs = []int{os.Getuid()} // for the socket alone
	})
	othersWithout := serveAs(t, os.Getuid()+1, nil)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(name string, s *served, wantStatus int, want string, header ...string) {
		t.Helper()
		status, got, _ := send(t, client, "GET", "http://"+s.tcp+listPath, "", header...)
		if status != wantStatus || !strings.Contains(got, want) || wantStatus != 200 && strings.Contains(got, "hive-01") {
			t.Errorf("%s: %d %s", name, status, got)
		}
	}
	for _, s := range []*served{ours, others, othersWithout} {
		check(t, s.registry.CreateNode(t.Context(), node("hive-01")))
	}
	_, port, err := net.SplitHostPort(ours.tcp)
	check(t, err)
	ask("our own user", ours, 200, "hive-01")
	ask("our own user, by name", ours, 200, "hive-01", "Host", "localhost:"+port)
	ask("another name for this address", ours, 421, "wrong_host", "Host", "attacker.example.org:"+port)
	ask("another port", ours, 421, "wrong_host", "Host", "localhost:1")
	ask("a wrong token", ours, 401, "INVALID_API_KEY", "Authorization", "Bearer "+token+"x")

	ask("another user", others, 401, `{"error":{"code":"MISSING_API_KEY","message":"Missing API key"}}`)
	ask("another user, wrong token", others, 401, `{"error":{"code":"INVALID_API_KEY","message":"Invalid API key"}}`, "Authorization", "Bearer wrong")
	ask("another user, another scheme", others, 401, "MISSING_API_KEY", "Authorization", "Basic "+token)
	ask("another user with the token", others, 200, "hive-01", "Authorization", "Bearer "+token)

	ask("no token is set", othersWithout, 401, "INVALID_API_KEY", "Authorization", "Bearer "+token)
	ask("no token is set, an empty one", othersWithout, 401, "MISSING_API_KEY", "Authorization", "Bearer ")
}

// TestGuardSocket: who may ask over the unix socket.
func TestGuardSocket(t *testing.T) {
	if status, got, _ := serve(t, nil).do(t, "GET", listPath, ""); status != 200 {
		t.Errorf("our own user: %d %s", status, got)
	}
	if status, got, _ := serveAs(t, os.Getuid()+1, nil).do(t, "GET", listPath, ""); status != 403 || errorOf(t, got) != "refused" {
		t.Errorf("another user: %d %s", status, got)
	}
	named := serveAs(t, os.Getuid()+1, func(cfg *Config) { cfg.UIDs = []int{os.Getuid()} })
	if status, got, _ := named.do(t, "GET", listPath, ""); status != 200 {
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
// browser is the user's own process. Reads are too: they could hold streams.
func TestCrossOrigin(t *testing.T) {
	s := serve(t, nil)
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://attacker.example.org"}, {"Origin", "null"}} {
		for _, method := range []string{"GET", "POST"} {
			path, body := listPath, ""
			if method == "POST" {
				path, body = "/v2/registry/beehives/remove", `{"node_name":"hive-01"}`
			}
			status, got, _ := send(t, http.DefaultClient, method, "http://"+s.tcp+path, body, header...)
			if status != 403 || errorOf(t, got) != "cross_origin" {
				t.Errorf("%s %s: %d %s", method, header, status, got)
			}
		}
	}
	for _, header := range [][]string{{"Sec-Fetch-Site", "none"}, {"Sec-Fetch-Site", "same-origin", "Origin", "http://" + s.tcp}} {
		status, got, head := send(t, http.DefaultClient, "GET", "http://"+s.tcp+listPath, "", header...)
		if status != 200 || head.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %s %v", header, status, got, head)
		}
	}
}

// TestStrangersTakeNoPlace: connections of users who may not connect, as many as there are, leave
// the places of those who may. What gets no place is closed.
func TestStrangersTakeNoPlace(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer tcp.Close()
	accepted := 0
	l := new(Server).admitting(tcp)
	l.admits = func(net.Conn, unixsocket.Peer) bool { // the last one alone
		accepted++
		return accepted == maxStrangers+2
	}
	var dialled []net.Conn
	for range maxStrangers + 2 {
		c, err := net.Dial("tcp", tcp.Addr().String())
		check(t, err)
		defer c.Close()
		dialled = append(dialled, c)
	}
	var taken []net.Conn
	for range maxStrangers + 1 {
		c, err := l.Accept()
		check(t, err)
		defer c.Close()
		taken = append(taken, c)
	}
	if last := taken[maxStrangers].(*conn); !last.admitted || last.RemoteAddr().String() != dialled[maxStrangers+1].LocalAddr().String() {
		t.Errorf("the last place went to %v", last.RemoteAddr())
	}
	refused := dialled[maxStrangers]
	refused.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := refused.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a stranger without a place read %d, %v", n, err)
	}
	taken[0].Close()
	taken[0].Close() // gives back one place, not two
	if len(l.strangerPlaces) != maxStrangers-1 || len(l.ourPlaces) != 1 {
		t.Errorf("%d and %d places are taken", len(l.strangerPlaces), len(l.ourPlaces))
	}
}

// TestRefusedIsClosed: who is refused keeps no connection.
func TestRefusedIsClosed(t *testing.T) {
	s := serveAs(t, os.Getuid()+1, nil)
	for network, address := range map[string]string{"tcp": s.tcp, "unix": s.socket} {
		c, err := net.Dial(network, address)
		check(t, err)
		defer c.Close()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", listPath, s.tcp)
		c.SetReadDeadline(time.Now().Add(time.Minute))
		if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 40") {
			t.Errorf("%s: %.40q, %v", network, answer, err)
		}
	}
}

// TestUnreadAnswer: who reads no answer keeps no connection.
func TestUnreadAnswer(t *testing.T) {
	s := start(t, nil, func(s *Server) { s.answerTimeout = 100 * time.Millisecond })
	c, err := net.Dial("unix", s.socket)
	check(t, err)
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(bodyTimeout / 2)) // before the server gives up on the next request
	for err == nil {
		_, err = io.WriteString(c, "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection goes on: %v", err)
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
	answers := func(conn net.Conn) {
		t.Helper()
		fmt.Fprintf(conn, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		check(t, err)
		if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
			t.Errorf("the first connection: %s, %v", answer.Status, err)
		}
	}
	before := runtime.NumGoroutine()
	for range maxConnections + 200 {
		conn, err := net.Dial("unix", s.socket)
		check(t, err)
		if open = append(open, conn); len(open) == 1 {
			answers(conn) // from now on it may be idle for longer than the others take
		}
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
	answers(open[0])
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
