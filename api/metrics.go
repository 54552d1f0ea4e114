package api

import (
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// metrics counts requests.
type metrics struct {
	running atomic.Int64
	byClass [6]atomic.Int64 // of the status: byClass[4] counts 4xx
}

// count counts the requests of next.
func (m *metrics) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.running.Add(1)
		defer m.running.Add(-1)
		counted := &countedAnswer{ResponseWriter: w}
		next.ServeHTTP(counted, r)
		counted.count.Do(func() { m.byClass[2].Add(1) })
		if class := counted.status / 100; class > 0 && class < len(m.byClass) {
			m.byClass[class].Add(1)
		}
	})
}

// countedAnswer remembers the status.
type countedAnswer struct {
	http.ResponseWriter
	count  sync.Once
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (a *countedAnswer) WriteHeader(status int) {
	a.count.Do(func() { a.status = status })
	a.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (a *countedAnswer) Write(p []byte) (int, error) {
	a.count.Do(func() { a.status = http.StatusOK })
	return a.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (a *countedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// writeMetrics answers in the text format of Prometheus. No name of a node is in it.
func (s *Server) writeMetrics(w http.ResponseWriter, r *http.Request) {
	byStatus := map[registry.Status]int{}
	err := s.cfg.Registry(r.Context(), func(reg *registry.Registry) error {
		nodes, err := reg.Snapshot(r.Context())
		for n := range nodes.All() {
			byStatus[n.Status]++
		}
		return err
	})
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprint(w, "# HELP rbee_vault_nodes Nodes of the registry, by status.\n# TYPE rbee_vault_nodes gauge\n")
	for _, status := range []registry.Status{registry.StatusUnknown, registry.StatusOnline, registry.StatusOffline, registry.StatusError} {
		fmt.Fprintf(w, "rbee_vault_nodes{status=%q} %d\n", status, byStatus[status])
	}
	fmt.Fprint(w, "# HELP rbee_vault_http_requests_total Requests that were answered, by the class of their status.\n# TYPE rbee_vault_http_requests_total counter\n")
	for class := 2; class < len(s.metrics.byClass); class++ {
		fmt.Fprintf(w, "rbee_vault_http_requests_total{class=\"%dxx\"} %d\n", class, s.metrics.byClass[class].Load())
	}
	fmt.Fprintf(w, "# HELP rbee_vault_http_requests_running Requests that are running.\n# TYPE rbee_vault_http_requests_running gauge\nrbee_vault_http_requests_running %d\n", s.metrics.running.Load())
	fmt.Fprintf(w, "# HELP rbee_vault_http_watchers Streams of changes that are open.\n# TYPE rbee_vault_http_watchers gauge\nrbee_vault_http_watchers %d\n", s.watch.watchers())
	fmt.Fprintf(w, "# HELP go_goroutines Goroutines that exist.\n# TYPE go_goroutines gauge\ngo_goroutines %d\n", runtime.NumGoroutine())
}
