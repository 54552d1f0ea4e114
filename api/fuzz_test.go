package api

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRoutes: no request makes a handler panic, and what is no valid request changes nothing.
func FuzzRoutes(f *testing.F) {
	s := serve(f, nil)
	client, err := net.Dial("unix", s.socket)
	check(f, err)
	l, err := net.Listen("unix", s.socket+"2")
	check(f, err)
	defer l.Close()
	go net.Dial("unix", s.socket+"2")
	server, err := l.Accept()
	check(f, err)
	f.Cleanup(func() { client.Close(); server.Close() })
	for _, seed := range [][3]string{
		{"GET", "/v2/registry/beehives/hive-01", ""},
		{"PUT", "/v2/registry/beehives/hive-01", `{"node_name":"hive-01"}`},
		{"PATCH", "/v2/registry/beehives/hive-01", `{"labels":{"a":null}}`},
		{"POST", "/v2/registry/beehives/add", `{"backends":"[]"}`},
		{"POST", "/v2/registry/beehives/remove", `{"node_name":1}`},
		{"POST", "/v2/registry/beehives/states", `{"states":[{}]}`},
		{"POST", "/v2/registry/beehives/hive-01/sign", `{"host_key":"AAAA","session_id":"","host_signature":"","request":""}`},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/watch") {
			return
		}
		r, err := http.NewRequest(method, "http://localhost", strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL.Path = path
		r.Header.Set("Content-Type", "application/json")
		r = r.WithContext(context.WithValue(t.Context(), connKey{}, &conn{Conn: server, peer: peerOf(server), admitted: true}))
		answer := httptest.NewRecorder()
		s.handler.ServeHTTP(answer, r)
		if answer.Code < 200 || answer.Code > 599 || answer.Code == 500 {
			t.Errorf("%s %q %q: %d %s", method, path, body, answer.Code, answer.Body)
		}
	})
}
