package registry

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// nodeCache keeps nodes that were read. A commit of any process changes the revision of
// the database. Then the nodes that changed, which triggers write into node_changes, are
// read again. A reader asks for the revision first, so what it gets has everything that
// was committed before the read began.
type nodeCache struct {
	// refreshing has a place for one: who brings the cache up to date. So many readers that
	// come after a commit read the changed nodes once.
	refreshing chan struct{}

	mu       sync.RWMutex     // guards what follows; all but keep also have the place in refreshing
	revision vault.Revision   // the nodes are of it, or of a later one
	seq      int64            // of the newest row of node_changes that the nodes have
	nodes    map[string]*Node // never changed, only replaced
	whole    bool             // all holds every node
	all      []*Node          // by name; never changed, only replaced
}

// maxCached limits the nodes that are kept, to about fifty megabytes. A larger fleet is read
// from the database each time.
const maxCached = 100_000

// maxChanged is how many changes are read one by one. Beyond that all is read again.
const maxChanged = 1000

func (c *nodeCache) enter(ctx context.Context) error {
	select {
	case c.refreshing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *nodeCache) leave() { <-c.refreshing }

// at reports whether the cache has everything of a revision. It is false for the zero
// Revision; see Registry.revision.
func (c *nodeCache) at(revision vault.Revision) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return revision != vault.Revision{} && c.nodes != nil && !c.revision.Before(revision)
}

// node returns a node as of a revision, or of a later one, if the cache has it.
func (c *nodeCache) node(revision vault.Revision, name string) (Node, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := c.nodes[name]
	if n == nil || c.revision.Before(revision) || revision == (vault.Revision{}) {
		return Node{}, false
	}
	return n.clone(), true
}

// list returns all nodes as of a revision, or of a later one, if the cache has them. The
// caller changes none of them.
func (c *nodeCache) list(revision vault.Revision) ([]*Node, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.whole || c.revision.Before(revision) || revision == (vault.Revision{}) {
		return nil, false
	}
	return c.all, true
}

// keep keeps a node that was read when the cache was at a revision. If it went on, the node
// may be an older one.
func (c *nodeCache) keep(revision vault.Revision, n Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision == c.revision && c.nodes != nil && !c.whole && len(c.nodes) < maxCached {
		n = n.clone()
		c.nodes[n.Name] = &n
	}
}

// set replaces what is kept.
func (c *nodeCache) set(revision vault.Revision, seq int64, all []*Node, whole bool) {
	nodes := make(map[string]*Node, len(all))
	for _, n := range all {
		nodes[n.Name] = n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision, c.seq, c.nodes, c.all, c.whole = revision, seq, nodes, all, whole
}

// apply moves the cache to a revision at which these nodes have changed; nil means that
// there is no such node any more.
func (c *nodeCache) apply(revision vault.Revision, seq int64, changed map[string]*Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, n := range changed {
		if n == nil {
			delete(c.nodes, name)
		} else if c.whole || c.nodes[name] != nil {
			c.nodes[name] = n
		}
	}
	if c.whole && len(changed) > 0 {
		c.all = merge(c.all, changed)
	}
	c.revision, c.seq = revision, seq
}

// merge returns a list by name with the changes.
func merge(all []*Node, changed map[string]*Node) []*Node {
	names := slices.Sorted(maps.Keys(changed))
	merged := make([]*Node, 0, len(all)+len(names))
	for _, name := range names {
		at, found := slices.BinarySearchFunc(all, name, func(n *Node, name string) int { return cmp.Compare(n.Name, name) })
		merged = append(merged, all[:at]...)
		if n := changed[name]; n != nil {
			merged = append(merged, n)
		}
		if found {
			at++
		}
		all = all[at:]
	}
	return append(merged, all...)
}

// refresh brings the cache up to date, and returns the revision that it then has at least.
// It is zero at the first read: see Registry.revision.
func (r *Registry) refresh(ctx context.Context) (vault.Revision, error) {
	revision, err := r.revision(ctx)
	if err != nil || revision == (vault.Revision{}) || r.cache.at(revision) {
		return revision, err
	}
	if err := r.cache.enter(ctx); err != nil {
		return revision, err
	}
	defer r.cache.leave()
	if r.cache.at(revision) {
		return revision, nil
	}
	return revision, r.v.View(ctx, func(tx *vault.Tx) error {
		seq, changed, err := r.cache.changed(ctx, tx, revision)
		if err != nil {
			return err
		}
		if changed == nil {
			r.cache.set(revision, seq, nil, false)
		} else {
			r.cache.apply(revision, seq, changed)
		}
		return nil
	})
}

// changed reads the nodes that have changed since the cache was at its revision. It is nil
// where all must be read again.
func (c *nodeCache) changed(ctx context.Context, tx *vault.Tx, revision vault.Revision) (seq int64, changed map[string]*Node, err error) {
	first, last, err := selectChangeBounds(ctx, tx)
	if err != nil || c.nodes == nil || !c.revision.Continues(revision) || last < c.seq || last-c.seq > maxChanged || last > c.seq && first > c.seq+1 {
		return last, nil, err
	}
	changed = map[string]*Node{}
	if last == c.seq {
		return last, changed, nil
	}
	names, err := selectChangedNames(ctx, tx, c.seq)
	if err != nil {
		return 0, nil, err
	}
	for _, name := range names {
		n, err := selectNode(ctx, tx, name)
		switch {
		case errors.Is(err, ErrNotFound):
			changed[name] = nil
		case err != nil: // a bad row is the error of who reads it
			return last, nil, nil
		default:
			changed[name] = &n
		}
	}
	return last, changed, nil
}

// loadAll returns all nodes by name, and keeps them unless they are too many. The caller
// changes none of them.
func (r *Registry) loadAll(ctx context.Context, revision vault.Revision) (all []*Node, err error) {
	if err := r.cache.enter(ctx); err != nil {
		return nil, err
	}
	defer r.cache.leave()
	if all, ok := r.cache.list(revision); ok {
		return all, nil
	}
	var seq int64
	shared := sharedTexts{}
	err = r.v.View(ctx, func(tx *vault.Tx) (err error) {
		if _, seq, err = selectChangeBounds(ctx, tx); err != nil {
			return err
		}
		for n, err := range selectNodes(ctx, tx) {
			if err != nil {
				return err
			}
			shared.share(&n)
			all = append(all, &n)
		}
		return nil
	})
	if err == nil && revision != (vault.Revision{}) && len(all) <= maxCached {
		r.cache.set(revision, seq, all, true)
	}
	return all, err
}

// sharedTexts has one copy of texts that many nodes have.
type sharedTexts map[string]string

// share replaces texts of a node by equal ones of the nodes before.
func (t sharedTexts) share(n *Node) {
	for _, text := range []*string{&n.SSHUser, &n.GitRepoURL, &n.GitBranch, &n.InstallPath} {
		if len(t) > maxShared {
			clear(t) // they differ more than they are alike
		}
		if same, ok := t[*text]; ok {
			*text = same
		} else {
			t[*text] = *text
		}
	}
}

// maxShared is how many texts are remembered.
const maxShared = 1000

// clone returns a copy that shares no memory with n.
func (n Node) clone() Node {
	n.Backends = slices.Clone(n.Backends)
	n.Devices = maps.Clone(n.Devices)
	n.Labels = maps.Clone(n.Labels)
	return n
}
