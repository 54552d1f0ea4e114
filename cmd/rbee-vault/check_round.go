package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// probesAtOnce bounds the probes of a check. The Dialer bounds the logins, in all and for
// each address; the rest wait there.
const probesAtOnce = 256

// watchLag is how far the stored last contact of a node that stays online may be behind:
// not every round of a watch needs a write.
const watchLag = time.Minute

// checkStore is what a check reads and writes of the registry.
type checkStore interface {
	ListHostKeys(ctx context.Context, names ...string) ([]registry.HostKey, error)
	TrustHostKeys(ctx context.Context, keys map[string][]ssh.PublicKey, replaces ...string) (int, error)
	UpdateStates(ctx context.Context, states []registry.State) (registry.StatesReport, error)
	UpdateCapabilities(ctx context.Context, name string, backends []string, devices map[string]uint32) error
}

var _ checkStore = (*registry.Registry)(nil)

// nodeDialer connects to nodes by their names.
type nodeDialer interface {
	DialProbe(ctx context.Context, name string) (*hive.Conn, hive.Result, error)
}

var (
	_ nodeDialer = (*hive.Dialer)(nil)
	_ nodeDialer = (*sessionDialer)(nil)
)

// checker checks nodes, one round after the other.
type checker struct {
	app    *app
	opts   checkOptions
	store  checkStore
	dialer nodeDialer

	names    []string                   // of the nodes
	statuses map[string]registry.Status // that the nodes have
	last     map[string]checked         // what the round before showed
	asked    map[string]bool            // nodes whose first contact was decided
	live     bool                       // the first round may be shown as it goes
}

func newChecker(a *app, o checkOptions, store checkStore, d nodeDialer, nodes []registry.Node) *checker {
	c := &checker{
		app: a, opts: o, store: store, dialer: d,
		statuses: map[string]registry.Status{}, last: map[string]checked{}, asked: map[string]bool{},
	}
	for _, n := range nodes {
		c.names = append(c.names, n.Name)
		c.statuses[n.Name] = n.Status
	}
	return c
}

// checked is what a round showed of a node.
type checked struct {
	hive.Result
	at          time.Time
	status      registry.Status // that the node has now
	machine     *hive.Machine   // what it has, where it was asked
	discoverErr error           // why that is not known
	// pinned are the host keys of the node At that are pinned, where Key is not nil.
	pinned []registry.HostKey
}

// good reports whether all that was asked for was done.
func (r checked) good() bool { return r.Outcome == hive.Online && r.discoverErr == nil }

// once makes one round.
func (c *checker) once(ctx context.Context) error {
	results, err := c.round(ctx, true)
	if err != nil {
		return err
	}
	if err := c.show(results); err != nil {
		return err
	}
	if err := c.save(ctx, results, 0); err != nil {
		return err
	}
	return checkError(results)
}

// checkError is errPartial if a node is not online or could not be asked what it has.
func checkError(results []checked) error {
	offline, undiscovered := 0, 0
	for _, r := range results {
		switch {
		case r.Outcome != hive.Online:
			offline++
		case r.discoverErr != nil:
			undiscovered++
		}
	}
	switch {
	case offline > 0:
		return fmt.Errorf("%w: %d of %d nodes are not online", errPartial, offline, len(results))
	case undiscovered > 0:
		return fmt.Errorf("%w: %d of %d nodes could not be asked what they have", errPartial, undiscovered, len(results))
	}
	return nil
}

// watch makes rounds until ctx ends, and returns its error.
func (c *checker) watch(ctx context.Context) error {
	for first := true; ; first = false {
		results, err := c.round(ctx, first)
		if err != nil {
			return err
		}
		if first {
			err = c.show(results)
		} else {
			err = c.showChanges(results)
		}
		if err == nil {
			err = c.save(ctx, results, watchLag)
		}
		if err == nil {
			err = c.app.ui.flush()
		}
		if err != nil {
			return err
		}
		for _, r := range results {
			c.last[r.Node] = r
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.opts.interval):
		}
	}
}

// round probes all nodes, and once more those whose host key was pinned in between. With
// meet, it decides about first contacts. The results are in the order of the nodes.
func (c *checker) round(ctx context.Context, meet bool) ([]checked, error) {
	results, err := c.probe(ctx, c.names)
	for err == nil && meet {
		var met []string
		if met, err = c.meet(ctx, results); err != nil || len(met) == 0 {
			break // a route may have several nodes to meet, one behind the other
		}
		var again []string
		for _, r := range results {
			if r.Key != nil && slices.Contains(met, r.At) {
				again = append(again, r.Node)
			}
		}
		var more []checked
		if more, err = c.probe(ctx, again); err != nil {
			break
		}
		for _, r := range more {
			i := slices.IndexFunc(results, func(old checked) bool { return old.Node == r.Node })
			results[i] = r
		}
	}
	if err != nil {
		return nil, err
	}
	return results, nil
}

// probe probes the nodes. One that was removed meanwhile is left out.
func (c *checker) probe(ctx context.Context, names []string) ([]checked, error) {
	report, end := c.progress(ctx, names)
	defer end()
	results := make([]checked, len(names))
	g, each := errgroup.WithContext(ctx) // each ends with Wait
	g.SetLimit(probesAtOnce)
	for i, name := range names {
		g.Go(func() (err error) {
			results[i], err = c.probeNode(each, name)
			if errors.Is(err, registry.ErrNotFound) {
				c.app.ui.logger().Debug("the node was removed", "node", name)
				err = nil
			}
			report(i, results[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	results = slices.DeleteFunc(results, func(r checked) bool { return r.Node == "" })
	return results, c.addPins(ctx, results)
}

func (c *checker) probeNode(ctx context.Context, name string) (checked, error) {
	conn, result, err := c.dialer.DialProbe(ctx, name)
	if err != nil {
		return checked{}, err
	}
	r := checked{Result: result, at: c.app.now(), status: result.Outcome.Status()}
	if r.status == "" { // it stays
		r.status = c.statuses[name]
	}
	if conn == nil {
		return r, nil
	}
	defer conn.Close()
	if before, seen := c.last[name]; !c.opts.discover || seen && before.good() {
		return r, nil
	}
	limited, cancel := context.WithTimeout(ctx, c.opts.timeout)
	defer cancel()
	switch machine, err := conn.Discover(limited); {
	case err == nil:
		r.machine = &machine
	case ctx.Err() != nil:
		return checked{}, ctx.Err()
	case limited.Err() != nil:
		r.discoverErr = fmt.Errorf("%w: it took longer than %s", hive.ErrDiscovery, c.opts.timeout)
	default:
		r.discoverErr = err
	}
	return r, nil
}

// addPins adds what is pinned for the nodes that presented another key.
func (c *checker) addPins(ctx context.Context, results []checked) error {
	if !slices.ContainsFunc(results, func(r checked) bool { return r.Key != nil }) {
		return nil
	}
	keys, err := c.store.ListHostKeys(ctx) // by name, a node that was just removed would be an error
	if err != nil {
		return err
	}
	for i := range results {
		r := &results[i]
		for _, k := range keys {
			if r.Key != nil && k.Node == r.At {
				r.pinned = append(r.pinned, k)
			}
		}
	}
	return nil
}

// firstContact reports whether the host key may be pinned without a look at other pins:
// there are none. A node with pins that presents a key of another type is not at first
// contact, because an attacker can always choose the type.
func (r checked) firstContact() bool {
	return r.Outcome == hive.HostKeyUnknown && r.Key != nil && len(r.pinned) == 0
}

// meet pins the keys that may be pinned at first contact, and returns whose they are. Each
// node is decided once.
func (c *checker) meet(ctx context.Context, results []checked) (met []string, err error) {
	if c.opts.noSave {
		return nil, nil
	}
	accepted := map[string][]ssh.PublicKey{}
	for _, r := range results {
		if !r.firstContact() || c.asked[r.At] {
			continue
		}
		c.asked[r.At] = true
		yes, err := c.opts.accept(ctx, c.app, r.Node, r.At, r.Key)
		if err != nil {
			return nil, err
		}
		if yes {
			accepted[r.At] = []ssh.PublicKey{r.Key}
			met = append(met, r.At)
		}
	}
	if len(accepted) == 0 {
		return nil, nil
	}
	if _, err := c.store.TrustHostKeys(ctx, accepted); err != nil {
		return nil, err
	}
	for _, name := range met {
		c.app.ui.info("%s: %s %s is pinned", name, accepted[name][0].Type(), ssh.FingerprintSHA256(accepted[name][0]))
	}
	return met, nil
}

// save stores what the round showed, in one transaction for all states.
func (c *checker) save(ctx context.Context, results []checked, lag time.Duration) error {
	if c.opts.noSave {
		return nil
	}
	var states []registry.State
	for _, r := range results {
		s := registry.State{Node: r.Node, Status: r.Outcome.Status(), Lag: lag}
		if s.Status == "" {
			continue
		}
		if r.Outcome == hive.Online {
			s.LastConnected = r.at
		}
		states = append(states, s)
	}
	if _, err := c.store.UpdateStates(ctx, states); err != nil {
		return err
	}
	for _, r := range results {
		c.statuses[r.Node] = r.status
		if r.machine == nil {
			continue
		}
		backends, devices := r.machine.Backends()
		if err := c.store.UpdateCapabilities(ctx, r.Node, backends, devices); err != nil && !errors.Is(err, registry.ErrNotFound) {
			return err
		}
	}
	return nil
}

// pinnedOfType returns the fingerprint of the pinned key of a type, or "".
func pinnedOfType(pinned []registry.HostKey, keyType string) string {
	for _, k := range pinned {
		if k.Type == keyType {
			return vault.Fingerprint(k.PublicKey)
		}
	}
	return ""
}
