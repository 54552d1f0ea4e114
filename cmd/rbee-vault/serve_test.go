package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// startServe starts the server and waits until it says where it listens.
func (h *hives) startServe(args ...string) (p *process, at serveJSON) {
	h.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	p = startProcess(h.t, h.env, nil, w, append([]string{"--no-input", "--json", "serve"}, args...)...)
	w.Close()
	h.t.Cleanup(func() { r.Close() })
	line, err := bufio.NewReader(r).ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &at)
	}
	if err != nil {
		p.cmd.Process.Kill()
		<-p.done
		h.t.Fatalf("the server says %q, %v: %s", line, err, &p.stderr)
	}
	return p, at
}

// over is a client of a unix socket.
func over(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// ask sends a request and returns the status and the body.
func ask(client *http.Client, method, url, body string) (int, string, error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(data), err
}

func nodeBody(name string) string {
	return fmt.Sprintf(`{"node_name":%q,"ssh_host":"192.0.2.1","ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt"}`, name)
}

// TestServe: another program adds a node, and sees what others do, through a rotation.
func TestServe(t *testing.T) {
	h := newHives(t)
	p, at := h.startServe("--listen", "localhost:0")
	if info, err := os.Stat(at.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	client := over(at.Socket)
	const list = "/v2/registry/beehives/list"
	if status, body, err := ask(client, "POST", "http://localhost/v2/registry/beehives/add", nodeBody("hive-01")); err != nil || status != 200 {
		t.Fatalf("%d %s, %v", status, body, err)
	}
	if out := h.must("node", "list"); !strings.Contains(out, "hive-01") {
		t.Errorf("the command sees %q", out)
	}
	h.must("rotate")
	h.must("node", "add", "hive-02", "--ssh-host", "192.0.2.2", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt")
	for name, client := range map[string]*http.Client{"http://localhost": client, "http://" + *at.Listen: http.DefaultClient} {
		if status, body, err := ask(client, "GET", name+list, ""); err != nil || status != 200 || !strings.Contains(body, "hive-02") {
			t.Errorf("%s: %d %s, %v", name, status, body, err)
		}
	}
	if out := h.must("audit", "list", "--action", "node.add"); strings.Count(out, "hive-") != 2 {
		t.Errorf("the log has\n%s", out)
	}
	h.expect(exitExists, "answers at the socket", "serve")
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.ends(); code != exitOK {
		t.Errorf("exit code %d: %s", code, &p.stderr)
	}
	if _, err := os.Lstat(at.Socket); err == nil {
		t.Error("the socket is left")
	}
}

func TestServeFlags(t *testing.T) {
	h := newHives(t)
	token := filepath.Join(h.home, "token")
	write := func(text string) {
		if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, address := range []string{"0.0.0.0:8080", "192.0.2.1:8080", ":8080", "example.org:80", "[::]:1"} {
		h.expect(exitUsage, "loopback", "serve", "--listen", address)
	}
	h.expect(exitUsage, "needs --listen", "serve", "--token-file", token)
	write("short\n")
	h.expect(exitInvalid, "32 characters", "serve", "--listen", "127.0.0.1:0", "--token-file", token)
	write("planted-token-" + strings.Repeat("x", 32) + " and more\n")
	code, stdout, stderr := command(t, h.env, "serve", "--listen", "127.0.0.1:0", "--token-file", token)
	if code != exitInvalid || strings.Contains(stdout+stderr, "planted") {
		t.Errorf("%d: %s%s", code, stdout, stderr)
	}
	h.expect(exitUsage, "--socket", "serve", "--allow-uid", "1")
	h.expect(exitUsage, "--socket", "serve", "--allow-uid", "1", "--socket", filepath.Join(h.runtime, "x", "api.sock"))

	write(strings.Repeat("x", 32) + "\n")
	socket := filepath.Join(h.home, "run", "api.sock")
	_, at := h.startServe("--listen", "127.0.0.1:0", "--token-file", token, "--allow-uid", "65534", "--socket", socket)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o666 || at.Socket != socket {
		t.Errorf("%v, %v, %+v", info, err, at)
	}
	r, _ := http.NewRequest("GET", "http://"+*at.Listen+"/health", nil)
	r.Header.Set("Authorization", "Bearer "+strings.Repeat("x", 32))
	if answer, err := http.DefaultClient.Do(r); err != nil || answer.StatusCode != 200 {
		t.Errorf("%v, %v", answer, err)
	}
}

// TestServeSign: only a server that was told to signs.
func TestServeSign(t *testing.T) {
	h := newHives(t)
	h.expect(exitUsage, "--confirm needs --sign", "serve", "--confirm")
	h.env = append(h.env, "SSH_ASKPASS=/nonexistent/askpass")
	h.expect(exitInvalid, "SSH_ASKPASS", "serve", "--sign", "--confirm")
	const login = `{"host_key":"aGk=","session_id":"aGk=","host_signature":"aGk=","request":"aGk="}`
	for _, want := range []struct {
		name  string
		flags []string
		error string
	}{{"no-signing", nil, "serve --sign"}, {"signing", []string{"--sign"}, `"refused"`}} {
		_, at := h.startServe(append(want.flags, "--socket", filepath.Join(h.runtime, want.name, "api.sock"))...)
		status, body, err := ask(over(at.Socket), "POST", "http://localhost/v2/registry/beehives/hive-01/sign", login)
		if err != nil || status < 400 || !strings.Contains(body, want.error) {
			t.Errorf("%s: %d %s, %v", want.name, status, body, err)
		}
	}
}

// TestServeKilled: what was acknowledged is there after a kill, under load.
func TestServeKilled(t *testing.T) {
	h := newHives(t)
	p, at := h.startServe()
	var acknowledged sync.Map
	var reads atomic.Int64
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			client := over(at.Socket)
			for i := range 1000 {
				name := fmt.Sprintf("hive-%d-%d", c, i)
				status, _, err := ask(client, "POST", "http://localhost/v2/registry/beehives/add", nodeBody(name))
				if err != nil || status != 200 {
					return // it was killed
				}
				acknowledged.Store(name, true)
			}
		})
		clients.Go(func() {
			client := over(at.Socket)
			for {
				if _, _, err := ask(client, "GET", "http://localhost/v2/registry/beehives/list", ""); err != nil {
					return
				}
				reads.Add(1)
			}
		})
	}
	waitFor(t, "some reads and writes", func() bool {
		n := 0
		acknowledged.Range(func(any, any) bool { n++; return true })
		return n > 20 && reads.Load() > 20
	})
	p.cmd.Process.Kill()
	<-p.done
	clients.Wait()
	list := h.must("node", "list", "--json")
	acknowledged.Range(func(name, _ any) bool {
		if !strings.Contains(list, strconv.Quote(name.(string))) {
			t.Errorf("%s was acknowledged, and is lost", name)
		}
		return true
	})
	// A killed server leaves its socket, and the next one takes its place.
	if _, again := h.startServe(); again.Socket != at.Socket {
		t.Errorf("%+v", again)
	}
}

// TestServeGivesWay: a request that comes during a rotation waits for it.
func TestServeGivesWay(t *testing.T) {
	h := newHives(t)
	_, at := h.startServe()
	client := over(at.Socket)
	stop := make(chan struct{})
	var failed atomic.Value
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if status, body, err := ask(client, "GET", "http://localhost/v2/registry/beehives/list", ""); err != nil || status != 200 {
				failed.Store(fmt.Sprintf("%d %s, %v", status, body, err))
			}
			time.Sleep(time.Millisecond) // the pace of a reader
		}
	})
	for range 2 {
		h.must("rotate")
	}
	close(stop)
	reader.Wait()
	if f := failed.Load(); f != nil {
		t.Error(f)
	}
}
