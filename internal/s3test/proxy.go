package s3test

import (
	"bytes"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Proxy stands before a server. It keeps each request, and can answer in the server's place.
type Proxy struct {
	URL string // the endpoint

	mu       sync.Mutex
	requests []*http.Request
	fault    Fault
}

// Fault answers the n-th request to the proxy, counted from 0 since the fault was set. next
// asks the server. An answer is cut off by panic([http.ErrAbortHandler]).
type Fault func(w http.ResponseWriter, r *http.Request, n int, next http.Handler)

// Proxy starts a proxy. It ends with the test.
func (s *Server) Proxy(t testing.TB) *Proxy {
	t.Helper()
	return s.proxy(t, httptest.NewServer)
}

// TLSProxy is Proxy with TLS. authority is the file of its certificate.
func (s *Server) TLSProxy(t testing.TB) (p *Proxy, authority string) {
	t.Helper()
	authority = filepath.Join(t.TempDir(), "authority.pem")
	return s.proxy(t, func(h http.Handler) *httptest.Server {
		server := httptest.NewTLSServer(h)
		block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
		must(t, 0, os.WriteFile(authority, pem.EncodeToMemory(block), 0o600))
		return server
	}), authority
}

func (s *Server) proxy(t testing.TB, start func(http.Handler) *httptest.Server) *Proxy {
	t.Helper()
	to, err := url.Parse(s.URL)
	must(t, 0, err)
	next := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // it is signed
	}}
	p := &Proxy{}
	proxy := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault, n := p.note(r)
		if fault == nil {
			next.ServeHTTP(w, r)
			return
		}
		fault(w, r, n, next)
	}))
	t.Cleanup(proxy.Close)
	p.URL = proxy.URL
	return p
}

func (p *Proxy) note(r *http.Request) (Fault, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, r)
	return p.fault, len(p.requests) - 1
}

// Strike sets the fault, nil for none, and forgets the requests so far.
func (p *Proxy) Strike(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.fault = nil, f
}

// Requests returns the requests since the last Strike.
func (p *Proxy) Requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*http.Request(nil), p.requests...)
}

// Refuse answers as S3 does when it refuses.
func Refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	w.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>injected</Message></Error>`))
}

// Lost lets the server answer, and cuts the connection in place of the answer.
func Lost(r *http.Request, next http.Handler) {
	next.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// PutWithout lets the server answer, to a PUT as if a header had not been sent:
// "If-None-Match" or "lock".
func (s *Server) PutWithout(w http.ResponseWriter, r *http.Request, next http.Handler, header string) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if r.Method != http.MethodPut || key == "" {
		next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	in := &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(body)}
	if header != "If-None-Match" && r.Header.Get("If-None-Match") != "" {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := s.Client(s.Root).PutObject(r.Context(), in) // the request itself is signed
	if err != nil {
		Refuse(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	w.Header().Set("x-amz-version-id", aws.ToString(out.VersionId))
}
