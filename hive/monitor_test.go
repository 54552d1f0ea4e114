package hive_test

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// gate is a way to a server that can be shut: then it ends every connection.
type gate struct {
	mu    sync.Mutex
	shut  bool
	conns []net.Conn
}

func (g *gate) enter(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, conn)
	return !g.shut
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, conn := range g.conns {
		conn.Close()
	}
	g.conns = nil
}

// monitored runs a monitor until the test is over, and returns its transitions.
func monitored(t *testing.T, d *hive.Dialer, o hive.MonitorOptions) (changes <-chan hive.Transition, stop func()) {
	t.Helper()
	c := make(chan hive.Transition, 10_000)
	o.Changed = func(tr hive.Transition) { c <- tr }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Monitor(ctx, o) }()
	return c, sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Monitor: %v", err)
		}
	})
}

func want(t *testing.T, changes <-chan hive.Transition, node string, after registry.Status) {
	t.Helper()
	for {
		select {
		case c := <-changes:
			if c.Node == node && c.After == after {
				return
			}
		case <-t.Context().Done():
			t.Fatalf("%s does not become %s", node, after)
		case <-time.After(time.Minute):
			t.Fatalf("%s does not become %s", node, after)
		}
	}
}

// TestMonitor: a node goes down and comes back, one is added, one is removed.
func TestMonitor(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized)
	var g gate
	host, port := serve(t, func(conn net.Conn, _ int) {
		if g.enter(conn) {
			forward(conn, server)
		} else {
			io.WriteString(conn, "SSH-2.0-x\r\n")
		}
	})
	f.add(t, "hive-01", host, port, server.User, hostKeys(t, server)...)
	d := f.dialer()
	changes, stop := monitored(t, d, hive.MonitorOptions{Interval: 100 * time.Millisecond, MaxInterval: 200 * time.Millisecond})
	defer stop()
	want(t, changes, "hive-01", registry.StatusOnline)
	g.set(true)
	want(t, changes, "hive-01", registry.StatusError)
	if n, err := f.GetNode(t.Context(), "hive-01"); err != nil || n.Status != registry.StatusError || n.LastConnected.IsZero() {
		t.Errorf("%+v, %v", n, err)
	}
	g.set(false)
	want(t, changes, "hive-01", registry.StatusOnline)
	f.addServer(t, "hive-02", server, ssh.KeyAlgoED25519)
	want(t, changes, "hive-02", registry.StatusOnline)
	if _, err := f.RemoveNode(t.Context(), "hive-01"); err != nil {
		t.Fatal(err)
	}
	// Its goroutine has ended with the monitor at the latest, and nothing else fails.
	stop()
}

// TestMonitorKeepsConnections: a node that is online is logged in to once, and looking at it
// writes nothing.
func TestMonitorKeepsConnections(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized)
	var logins atomic.Int32
	var read atomic.Int64
	host, port := serve(t, func(conn net.Conn, _ int) {
		logins.Add(1)
		forward(countedConn{conn, &read}, server)
	})
	f.add(t, "hive-01", host, port, server.User, hostKeys(t, server)...)
	changes, stop := monitored(t, f.dialer(), hive.MonitorOptions{Interval: 50 * time.Millisecond})
	defer stop()
	want(t, changes, "hive-01", registry.StatusOnline)
	wantNoWrite(t, f, &read, 1000) // some twenty keepalives
	if logins.Load() != 1 {
		t.Errorf("%d logins", logins.Load())
	}
}

// wantNoWrite sees that nothing is written while the servers read so many bytes.
func wantNoWrite(t *testing.T, f fleet, read *atomic.Int64, bytes int64) {
	t.Helper()
	before, err := f.Vault().Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seen := read.Load(); read.Load() < seen+bytes; time.Sleep(time.Millisecond) {
		if t.Context().Err() != nil {
			t.Fatal("nobody sends keepalives")
		}
	}
	if after, err := f.Vault().Revision(t.Context()); err != nil || after != before {
		t.Errorf("revision %v, then %v, %v", before, after, err)
	}
}

// openFiles returns how many descriptors the process has.
func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// countedConn counts what is read.
type countedConn struct {
	net.Conn
	read *atomic.Int64
}

// Read implements [io.Reader].
func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// TestMonitorMany watches a thousand nodes over TCP. Goroutines and descriptors are bounded,
// nothing is written without a change, and nothing is left behind.
func TestMonitorMany(t *testing.T) {
	f := newFleet(t)
	host, port, key, read := serveSSH(t, nil)
	const nodes = 1000
	f.addMany(t, nodes, host, port, key)
	before, files := runtime.NumGoroutine(), openFiles(t)
	changes, stop := monitored(t, f.dialer(), hive.MonitorOptions{Interval: time.Second})
	online := map[string]bool{}
	for len(online) < nodes {
		select {
		case c := <-changes:
			if c.After == registry.StatusOnline {
				online[c.Node] = true
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("%d nodes are online", len(online))
		}
	}
	// A node has a goroutine, and a connection has five on each side, in this process both: of
	// the client and the server, and of the test.
	if n := runtime.NumGoroutine() - before; n > 13*nodes {
		t.Errorf("%d goroutines more for %d nodes", n, nodes)
	}
	if n := openFiles(t) - files; n > 2*nodes+16 { // both ends of a connection; and the database
		t.Errorf("%d descriptors more for %d nodes", n, nodes)
	}
	wantNoWrite(t, f, read, 20*nodes)
	stop()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+10 || openFiles(t) > files+16; { // the server's own end behind the monitor's
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and %d descriptors, there were %d and %d", runtime.NumGoroutine(), openFiles(t), before, files)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
