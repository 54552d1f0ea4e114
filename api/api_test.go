package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/rbee-keeper/rbee-vault/agent"
	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// served is a server on a unix socket and on the loopback interface.
type served struct {
	*Server
	registry *registry.Registry
	socket   string
	tcp      string // address
	client   *http.Client
	stop     func() error
}

func explain(err error) Problem {
	p := Problem{Code: 1, Name: "error", Message: err.Error()}
	switch {
	case errors.Is(err, registry.ErrNotFound):
		p.Code, p.Name = 14, "not_found"
	case errors.Is(err, registry.ErrExists):
		p.Code, p.Name = 15, "exists"
	case errors.Is(err, vault.ErrClosed):
		p.Code, p.Name = 11, "locked"
	case errors.Is(err, vault.ErrInvalid):
		p.Code, p.Name = 16, "invalid"
	}
	return p
}

// serve starts a server over a new vault. change may change its configuration.
func serve(t testing.TB, change func(*Config)) *served {
	t.Helper()
	return serveAs(t, os.Getuid(), change)
}

// serveAs is serve for a user, who is another one than that of the test where uid says so.
func serveAs(t testing.TB, uid int, change func(*Config)) *served {
	t.Helper()
	return start(t, change, func(s *Server) { s.uid = uid })
}

// start is serve that may also change the server itself, before it starts.
func start(t testing.TB, change func(*Config), adapt func(*Server)) *served {
	t.Helper()
	reg := registry.New(vaulttest.New(t))
	lend := func(_ context.Context, use func(*registry.Registry) error) error { return use(reg) }
	keys, err := agent.New(agent.Config{Registry: agent.Lend(reg)})
	check(t, err)
	cfg := Config{Registry: lend, Explain: explain, Agent: keys, Version: "0.1.0"}
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	check(t, err)
	adapt(server)
	dir, err := os.MkdirTemp("", "api") // its path is short enough for a socket
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &served{Server: server, registry: reg, socket: filepath.Join(dir, "sub", "api")}
	unix, err := unixsocket.Listen(s.socket)
	check(t, err)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s.tcp = tcp.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, unix, tcp) }()
	s.stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	s.client = &http.Client{Transport: validating{t, document(t), &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		},
	}}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// document is the router of openapi.json.
func document(t testing.TB) routers.Router {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	check(t, err)
	check(t, doc.Validate(context.Background()))
	router, err := gorillamux.NewRouter(doc)
	check(t, err)
	return router
}

// validating holds each answer to openapi.json, and each request that was answered with
// success.
type validating struct {
	t      testing.TB
	router routers.Router
	next   *http.Transport
}

func (v validating) CloseIdleConnections() { v.next.CloseIdleConnections() }

func (v validating) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		sent, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	answer, err := v.next.RoundTrip(r)
	if err != nil || strings.HasPrefix(answer.Header.Get("Content-Type"), "text/") {
		return answer, err
	}
	got, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(got))
	if err != nil {
		return answer, err
	}
	again := r.Clone(context.Background())
	again.Body = io.NopCloser(bytes.NewReader(sent))
	route, params, err := v.router.FindRoute(again)
	if err != nil {
		if answer.StatusCode != http.StatusNotFound && answer.StatusCode != http.StatusMethodNotAllowed {
			v.t.Errorf("%s %s: %d, and the document has no such route: %v", r.Method, r.URL.Path, answer.StatusCode, err)
		}
		return answer, nil
	}
	in := &openapi3filter.RequestValidationInput{Request: again, PathParams: params, Route: route, Options: &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
	}}
	if answer.StatusCode < 300 {
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			v.t.Errorf("%s %s: the document does not allow what the server takes: %v", r.Method, r.URL.Path, err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: answer.StatusCode, Header: answer.Header, Options: in.Options}
	if err := openapi3filter.ValidateResponse(context.Background(), out.SetBodyBytes(got)); err != nil {
		v.t.Errorf("%s %s: %d is not as the document says: %v\n%s", r.Method, r.URL.Path, answer.StatusCode, err, got)
	}
	return answer, nil
}

// do sends a request over the socket, and returns the status, the body and the headers.
func (s *served) do(t testing.TB, method, path, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	return send(t, s.client, method, "http://localhost"+path, body, header...)
}

func send(t testing.TB, client *http.Client, method, url, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	check(t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	answer, err := client.Do(r)
	check(t, err)
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	check(t, err)
	return answer.StatusCode, strings.TrimSpace(string(data)), answer.Header
}

func node(name string) registry.Node {
	return registry.Node{Name: name, SSHHost: name + ".example.org", SSHPort: 22, SSHUser: "ops",
		GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt/rbee"}
}

func nodeText(t testing.TB, n registry.Node) string {
	t.Helper()
	data, err := n.MarshalJSON()
	check(t, err)
	return string(data)
}

// errorOf returns the name in an error's answer.
func errorOf(t testing.TB, body string) string {
	t.Helper()
	var e struct{ Error Problem }
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Errorf("%q: %v", body, err)
	}
	return e.Error.Name
}

func auditRows(t testing.TB, s *served) (rows []vault.AuditRow, err error) {
	t.Helper()
	err = s.registry.Vault().View(t.Context(), func(tx *vault.Tx) error {
		for row, err := range tx.AuditRows(t.Context(), 1) {
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
		return nil
	})
	return rows, err
}
