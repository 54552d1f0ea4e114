package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// watcher reads a stream of events.
type watcher struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

type received struct {
	id, name string
	list     struct{ Nodes []registry.Node }
	change   changeJSON
}

func watch(t *testing.T, s *served, lastID string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", "http://localhost/v2/registry/watch", nil)
	check(t, err)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	answer, err := s.client.Do(r)
	check(t, err)
	if kind := answer.Header.Get("Content-Type"); answer.StatusCode != 200 || kind != "text/event-stream" {
		t.Fatalf("%d %s", answer.StatusCode, kind)
	}
	w := &watcher{t: t, lines: bufio.NewScanner(answer.Body), close: func() { cancel(); answer.Body.Close() }}
	t.Cleanup(w.close)
	return w
}

// next returns the next event, which must come within a minute.
func (w *watcher) next() (e received) {
	w.t.Helper()
	timer := time.AfterFunc(time.Minute, w.close)
	defer timer.Stop()
	for w.lines.Scan() {
		switch field, value, _ := strings.Cut(w.lines.Text(), ": "); field {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			var err error
			if e.name == "list" {
				err = json.Unmarshal([]byte(value), &e.list)
			} else {
				err = json.Unmarshal([]byte(value), &e.change)
			}
			check(w.t, err)
			return e
		}
	}
	w.t.Fatalf("the stream ended: %v", w.lines.Err())
	return e
}

func TestWatch(t *testing.T) {
	s := serve(t, nil)
	check(t, s.registry.CreateNode(t.Context(), node("hive-01")))
	first := watch(t, s, "")
	e := first.next()
	if e.name != "list" || len(e.list.Nodes) != 1 {
		t.Fatalf("%+v", e)
	}
	start := e.id
	check(t, s.registry.CreateNode(t.Context(), node("hive-02")))
	added := first.next()
	if c := added.change; added.name != "node" || c.Name != "hive-02" || c.Before != nil || c.After == nil {
		t.Fatalf("%+v", added)
	}
	check(t, s.registry.UpdateStatus(t.Context(), "hive-01", registry.StatusOnline))
	if c := first.next().change; c.Name != "hive-01" || c.Before.Status != registry.StatusUnknown || c.After.Status != registry.StatusOnline {
		t.Fatalf("%+v", c)
	}
	first.close()

	// One that comes back gets what it missed, also of the time when nobody watched.
	_, err := s.registry.RemoveNode(t.Context(), "hive-02")
	check(t, err)
	again := watch(t, s, added.id)
	if c := again.next().change; c.Name != "hive-01" || c.After == nil {
		t.Errorf("%+v", c)
	}
	last := again.next()
	if c := last.change; c.Name != "hive-02" || c.Before == nil || c.After != nil {
		t.Errorf("%+v", c)
	}
	// Who knows everything gets nothing, not even the list, until something happens.
	current := watch(t, s, last.id)
	check(t, s.registry.CreateNode(t.Context(), node("hive-03")))
	if e := current.next(); e.name != "node" || e.change.Name != "hive-03" {
		t.Errorf("%+v", e)
	}
	// What is not known gets the list.
	for _, id := range []string{"another-1", "nothing", strings.TrimSuffix(start, "-0") + "-99999"} {
		if e := watch(t, s, id).next(); e.name != "list" || len(e.list.Nodes) != 2 {
			t.Errorf("%s: %+v", id, e)
		}
	}
	if e := watch(t, s, start).next(); e.name != "node" {
		t.Errorf("from the start: %+v", e)
	}
}

// TestWatchTooOld: a client that is further behind than what is kept gets the list.
func TestWatchTooOld(t *testing.T) {
	h := newHub(nil)
	n := node("hive-01")
	for range 3 * kept {
		h.tell(registry.Change{Name: n.Name, After: &n})
	}
	for number, want := range map[int64]bool{1: false, 3*kept - kept: true, 3 * kept: true, 3*kept + 1: false} {
		if _, ok := h.known(fmt.Sprintf("%s-%d", h.instance, number)); ok != want {
			t.Errorf("%d: known is %t", number, ok)
		}
	}
	if len(h.recent) > 2*kept {
		t.Errorf("%d changes are kept", len(h.recent))
	}
}

// TestSlowReader: a client that does not read is dropped, and others go on.
func TestSlowReader(t *testing.T) {
	h := newHub(nil)
	slow, quick := &stream{make(chan event, queued)}, &stream{make(chan event, 2*queued)}
	h.streams[slow], h.streams[quick] = true, true
	n := node("hive-01")
	for range queued + 1 {
		h.tell(registry.Change{Name: n.Name, After: &n})
	}
	if h.streams[slow] || !h.streams[quick] {
		t.Errorf("streams: %v", h.streams)
	}
	for range queued {
		<-slow.events
	}
	if _, ok := <-slow.events; ok {
		t.Error("the slow stream goes on")
	}
}

// TestLooksInOrder: of many looks at once, none puts an older state in place of a newer one.
func TestLooksInOrder(t *testing.T) {
	s := serve(t, nil)
	ctx := t.Context()
	for i := range 200 {
		check(t, s.registry.CreateNode(ctx, node(fmt.Sprintf("hive-%03d", i))))
	}
	h := newHub(s.cfg.Registry)
	h.streams[&stream{make(chan event, 10_000)}] = true
	stop := make(chan struct{})
	var looks sync.WaitGroup
	for range 4 {
		looks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := h.lend(ctx, func(r *registry.Registry) error { return h.look(ctx, r) }); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for i := range 100 {
		check(t, s.registry.CreateNode(ctx, node(fmt.Sprintf("more-%03d", i))))
	}
	close(stop)
	looks.Wait()
	for _, e := range h.recent {
		if e.change.After == nil {
			t.Fatalf("%s was told to be removed", e.change.Name)
		}
	}
}

// TestAnsweredAtTheEnd: a request that runs when the server is told to end gets its answer.
func TestAnsweredAtTheEnd(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := serve(t, func(cfg *Config) {
		lend := cfg.Registry
		cfg.Registry = func(ctx context.Context, use func(*registry.Registry) error) error {
			first := false
			once.Do(func() { first = true })
			if first {
				close(begun)
				<-goOn
			}
			return lend(ctx, use)
		}
	})
	answered := make(chan string)
	go func() {
		status, got, _ := s.do(t, "PUT", "/v2/registry/beehives/hive-01", nodeText(t, node("hive-01")))
		answered <- fmt.Sprint(status, got)
	}()
	<-begun
	ended := make(chan error)
	go func() { ended <- s.stop() }()
	for { // until the server takes no more
		conn, err := net.Dial("unix", s.socket)
		if err != nil {
			break
		}
		conn.Close()
	}
	close(goOn)
	if got := <-answered; !strings.HasPrefix(got, "201") {
		t.Errorf("answered %s", got)
	}
	check(t, <-ended)
}

// TestWatchEnds: the end of the server ends the streams.
func TestWatchEnds(t *testing.T) {
	s := serve(t, nil)
	w := watch(t, s, "")
	w.next()
	check(t, s.stop())
	for w.lines.Scan() {
		if line := w.lines.Text(); line != "" {
			t.Errorf("the stream goes on: %q", line)
		}
	}
}
