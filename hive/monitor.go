package hive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// MonitorOptions says how often nodes are looked at. The zero value is usable.
type MonitorOptions struct {
	// Interval is the time between two looks at a node that is online. Default: 30 s.
	Interval time.Duration
	// MaxInterval bounds the time between two logins to a node that is not; it doubles from
	// Interval on. Default: 5 minutes.
	MaxInterval time.Duration
	// Lag is how far the stored time of the last contact may stay behind while the status
	// is the same. Default: 10 minutes.
	Lag time.Duration
	// Changed is called with each change of a status, one after the other, once it is
	// stored. Nil: nobody is told.
	Changed func(Transition)
	// Logger gets what cannot be stored. Nil: nothing is logged.
	Logger *slog.Logger
}

// Transition is a change of a node's status.
type Transition struct {
	Node          string
	Before, After registry.Status
	Result        Result // that showed it
}

func (o MonitorOptions) interval() time.Duration {
	if o.Interval > 0 {
		return o.Interval
	}
	return 30 * time.Second
}

func (o MonitorOptions) maxInterval() time.Duration {
	if o.MaxInterval > 0 {
		return o.MaxInterval
	}
	return 5 * time.Minute
}

func (o MonitorOptions) lag() time.Duration {
	if o.Lag > 0 {
		return o.Lag
	}
	return 10 * time.Minute
}

func (o MonitorOptions) log() *slog.Logger {
	if o.Logger != nil {
		return o.Logger
	}
	return slog.New(slog.DiscardHandler)
}

const (
	reconcileEvery = time.Second // how often the list of nodes is looked at
	flushEvery     = time.Second // how long states are collected for one transaction
	keepaliveWait  = 10 * time.Second
)

// Monitor watches all nodes until ctx ends, and stores how they answer: where nothing
// changes, it writes nothing. It keeps a connection with each node that is online, because
// a keepalive is cheaper than a login and never counts as one that failed. A node that does
// not answer is asked less and less often. It sees nodes that are added, changed and
// removed, by any process. The error is one of the vault; the end of ctx is none.
func (d *Dialer) Monitor(ctx context.Context, o MonitorOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	m := &monitor{dialer: d, options: o, results: make(chan Result), nodes: map[string]*watched{}, pending: map[string]Result{}}
	err := m.run(ctx)
	cancel()
	m.wait()
	// What was seen last is stored too.
	late, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	return errors.Join(err, m.flush(late))
}

// monitor is one run of Monitor. Its fields are for the goroutine of run alone, but for
// those that do not change.
type monitor struct {
	dialer  *Dialer
	options MonitorOptions
	results chan Result
	nodes   map[string]*watched
	pending map[string]Result // by node, not stored yet
	group   sync.WaitGroup
}

// watched is a node with a goroutine of its own.
type watched struct {
	node   registry.Node
	status registry.Status // as it was stored last
	stop   context.CancelFunc
}

func (m *monitor) run(ctx context.Context) error {
	reconcile := time.NewTicker(reconcileEvery)
	defer reconcile.Stop()
	flush := time.NewTicker(flushEvery)
	defer flush.Stop()
	var seen vault.Revision
	first := true
	for {
		now, err := m.dialer.Registry.Vault().Revision(ctx)
		if err == nil && (first || now != seen) {
			err = m.reconcile(ctx)
			seen, first = now, false
		}
		for again := true; err == nil && again; {
			select {
			case <-ctx.Done():
				return nil
			case r := <-m.results:
				m.pending[r.Node] = r
			case <-flush.C:
				err = m.flush(ctx)
			case <-reconcile.C:
				again = false
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("monitor nodes: %w", err)
		}
	}
}

// wait ends the goroutines of all nodes.
func (m *monitor) wait() {
	go func() {
		m.group.Wait()
		close(m.results)
	}()
	for r := range m.results {
		m.pending[r.Node] = r
	}
}

// reconcile has a goroutine for each node that there is, and for no other.
func (m *monitor) reconcile(ctx context.Context) error {
	nodes, err := m.dialer.Registry.ListNodes(ctx)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, n := range nodes {
		there[n.Name] = true
		w := m.nodes[n.Name]
		if w != nil && address(w.node) == address(n) && w.node.SSHUser == n.SSHUser && w.node.SSHKeyPath == n.SSHKeyPath {
			w.status = n.Status // somebody else may have stored one
			continue
		}
		if w != nil {
			w.stop()
		}
		own, stop := context.WithCancel(ctx)
		m.nodes[n.Name] = &watched{node: n, status: n.Status, stop: stop}
		m.group.Go(func() { m.watch(own, n.Name) })
	}
	for name, w := range m.nodes {
		if !there[name] {
			w.stop()
			delete(m.nodes, name)
			delete(m.pending, name)
		}
	}
	return nil
}

// watch looks at one node again and again, until ctx ends.
func (m *monitor) watch(ctx context.Context, name string) {
	var conn *Conn
	defer func() { conn.Close() }()
	interval := m.options.interval()
	delay := rand.N(min(interval, 10*time.Second)) // so that not all begin at once
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		r := Result{Node: name, Outcome: Online, At: name}
		if conn != nil && !alive(ctx, conn) {
			conn.Close()
			conn = nil
		}
		if conn == nil {
			var err error
			conn, r, err = m.dialer.DialProbe(ctx, name)
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, registry.ErrNotFound) {
					m.options.log().Warn("a node cannot be looked at", "node", name, "error", err)
				}
				r = Result{Node: name, Outcome: Busy} // it says nothing of the node
			}
		}
		if r.Outcome == Online {
			interval = m.options.interval()
		} else {
			interval = min(2*interval, m.options.maxInterval())
		}
		delay = interval*3/4 + rand.N(interval/2)
		if r.Outcome.Status() != "" {
			select {
			case m.results <- r:
			case <-ctx.Done():
				return
			}
		}
	}
}

// alive reports whether the other side answers.
func alive(ctx context.Context, conn *Conn) bool {
	answered := make(chan error, 1)
	go func() {
		_, _, err := conn.SendRequest("keepalive@openssh.com", true, nil)
		answered <- err
	}()
	select {
	case err := <-answered:
		return err == nil
	case <-ctx.Done():
	case <-time.After(keepaliveWait):
	}
	conn.Close() // ends the goroutine
	<-answered
	return false
}

// flush stores what is pending, and reports what changed by it. While another process keeps
// the vault locked, it is kept for the next time.
func (m *monitor) flush(ctx context.Context) error {
	if len(m.pending) == 0 {
		return nil
	}
	now := time.Now()
	var states []registry.State
	for name, r := range m.pending {
		s := registry.State{Node: name, Status: r.Outcome.Status(), Lag: m.options.lag()}
		if r.Outcome == Online {
			s.LastConnected = now
		}
		states = append(states, s)
	}
	_, err := m.dialer.Registry.UpdateStates(ctx, states)
	if errors.Is(err, vault.ErrLocked) || errors.Is(err, vault.ErrUnsettled) {
		m.options.log().Warn("the states of nodes cannot be stored now", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	for name, r := range m.pending {
		w := m.nodes[name]
		if after := r.Outcome.Status(); w != nil && after != w.status {
			t := Transition{Node: name, Before: w.status, After: after, Result: r}
			w.status = after
			if m.options.Changed != nil {
				m.options.Changed(t)
			}
		}
	}
	clear(m.pending)
	return nil
}
