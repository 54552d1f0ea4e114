package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The load of TestServeLoad: an hour of heartbeats, one a minute of each node, as fast as they
// are taken.
const (
	loadNodes   = 1000
	loadWriters = 10
	loadReaders = 100
	loadBeats   = 60 // of each node
)

// poolDescriptors is how many files the connections to the database may have open that an idle
// server has not needed yet. Connections of clients are many more.
const poolDescriptors = 24

// loadTest is clients that read and write, and what they saw.
type loadTest struct {
	h      *hives
	client *http.Client
	beat   [loadWriters]atomic.Int64 // the newest one that was acknowledged

	mu   sync.Mutex // guards took
	took map[string][]time.Duration
}

// measure records how long a request took.
func (l *loadTest) measure(kind string, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took[kind] = append(l.took[kind], time.Since(since))
}

func loadNode(i int) string { return fmt.Sprintf("n%04d", i) }

// write sends the heartbeats of a writer's nodes up to a number, in one request each.
func (l *loadTest) write(writer int, last int64) error {
	for beat := l.beat[writer].Load() + 1; beat <= last; beat++ {
		var states []string
		for i := writer; i < loadNodes; i += loadWriters {
			status := []string{"online", "offline"}[(beat/16)%2]
			states = append(states, fmt.Sprintf(`{"node_name":%q,"status":%q,"last_connected_unix":%d}`, loadNode(i), status, beat*1000))
		}
		begun := time.Now()
		status, body, err := ask(l.client, "POST", "http://localhost/v2/registry/beehives/states", `{"states":[`+strings.Join(states, ",")+`]}`)
		if err != nil || status != 200 {
			return fmt.Errorf("beat %d: %d %s, %w", beat, status, body, err)
		}
		l.measure("write", begun)
		l.beat[writer].Store(beat)
	}
	return nil
}

// run has all clients work until the writers have written up to a heartbeat, or failed.
func (l *loadTest) run(last int64) []error {
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	failed := make([]error, loadWriters)
	for i := range loadReaders {
		readers.Go(func() {
			for n := i; !done.Load(); n += 7 {
				kind, path := "get", "/"+loadNode(n%loadNodes)
				if n%20 == 0 {
					kind, path = "list", "/list"
				}
				begun := time.Now()
				if status, _, err := ask(l.client, "GET", "http://localhost/v2/registry/beehives"+path, ""); err != nil || status != 200 {
					return // the writers say why
				}
				l.measure(kind, begun)
			}
		})
	}
	for i := range loadWriters {
		writers.Go(func() { failed[i] = l.write(i, last) })
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	l.client.CloseIdleConnections()
	return failed
}

// check compares what the vault has with what was acknowledged.
func (l *loadTest) check() {
	l.h.t.Helper()
	out := l.h.must("node", "list", "--format", "{{.node_name}} {{.last_connected_unix}}")
	seen := map[string]int64{}
	for line := range strings.Lines(out) {
		name, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		seen[name], _ = strconv.ParseInt(at, 10, 64)
	}
	for i := range loadNodes {
		want := l.beat[i%loadWriters].Load() * 1000
		if got := seen[loadNode(i)]; got != want && got != want+1000 { // one more may be there without an answer
			l.h.t.Fatalf("%s has %d, and %d was acknowledged", loadNode(i), got, want)
		}
	}
}

// resources are what a process holds.
type resources struct{ goroutines, descriptors, kilobytes int }

func (l *loadTest) resources(p *process) (r resources) {
	l.h.t.Helper()
	number := func(pattern, text string) int {
		found := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if found == nil {
			l.h.t.Fatalf("%s in %s", pattern, text)
		}
		n, _ := strconv.Atoi(found[1])
		return n
	}
	_, metrics, err := ask(l.client, "GET", "http://localhost/metrics", "")
	if err != nil {
		l.h.t.Fatal(err)
	}
	l.client.CloseIdleConnections()
	r.goroutines = number(`(?m)^go_goroutines (\d+)$`, metrics)
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		l.h.t.Fatal(err)
	}
	r.descriptors = len(fds)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		l.h.t.Fatal(err)
	}
	r.kilobytes = number(`VmRSS:\s+(\d+) kB`, string(status))
	return r
}

// TestServeLoad: a hundred clients read while ten write an hour of heartbeats. What was
// acknowledged survives a SIGKILL of the server, and nothing is left behind.
func TestServeLoad(t *testing.T) {
	h := newHives(t)
	var lines strings.Builder
	for i := range loadNodes {
		fmt.Fprintf(&lines, `{"node_name":%q,"ssh_host":"192.0.2.1","ssh_port":22,"ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt"}`+"\n", loadNode(i))
	}
	fleet := filepath.Join(h.home, "fleet.jsonl")
	if err := os.WriteFile(fleet, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("node", "import", fleet)
	l := &loadTest{h: h, took: map[string][]time.Duration{}}
	killed, at := h.startServe()
	l.client = over(at.Socket)
	l.client.Transport.(*http.Transport).MaxIdleConnsPerHost = loadReaders + loadWriters
	ended := make(chan []error, 1)
	go func() { ended <- l.run(loadBeats) }()
	for l.beat[0].Load() < loadBeats/3 {
		time.Sleep(time.Millisecond)
		if len(ended) > 0 {
			break
		}
	}
	killed.cmd.Process.Kill()
	<-killed.done
	for i, err := range <-ended {
		if err == nil {
			t.Errorf("writer %d did not see the kill", i)
		}
	}
	l.check()

	p, _ := h.startServe()
	idle := l.resources(p)
	for i, err := range l.run(loadBeats * 2 / 3) {
		if err != nil {
			t.Fatalf("writer %d: %v", i, err)
		}
	}
	warm := l.resources(p)
	for i, err := range l.run(loadBeats) {
		if err != nil {
			t.Fatalf("writer %d: %v", i, err)
		}
	}
	l.check()
	deadline := time.Now().Add(30 * time.Second)
	end := l.resources(p)
	grown := func() bool {
		return end.goroutines > idle.goroutines+2 || end.descriptors > idle.descriptors+poolDescriptors || end.kilobytes > warm.kilobytes*5/4
	}
	for grown() && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond) // connections that the clients have closed
		end = l.resources(p)
	}
	if grown() {
		t.Errorf("idle %+v, warm %+v, at the end %+v", idle, warm, end)
	}
	t.Logf("idle %+v, warm %+v, at the end %+v", idle, warm, end)
	for _, kind := range []string{"get", "list", "write"} {
		took := l.took[kind]
		slices.Sort(took)
		at := func(part float64) time.Duration {
			return took[int(part*float64(len(took)-1))].Round(10 * time.Microsecond)
		}
		t.Logf("%-5s %6d requests: p50 %v, p99 %v, p999 %v", kind, len(took), at(.5), at(.99), at(.999))
	}
}
