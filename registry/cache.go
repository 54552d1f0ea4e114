package registry

import (
	"maps"
	"slices"
	"sync"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// nodeCache keeps the nodes that were read, as long as nobody commits. A reader asks
// for the revision of the database first; what is kept for that revision was read from
// that state or a later one, so nothing that was committed before the read began is
// missing in it.
type nodeCache struct {
	mu       sync.RWMutex // guards what follows
	revision vault.Revision
	nodes    map[string]Node
	all      []Node // all of them, in their order; nil: not known
	whole    bool   // all is known
}

// maxCached bounds what is kept, in nodes: some ten megabytes. A larger fleet is read
// from the database each time.
const maxCached = 20_000

// node returns a node as it is at a revision, if that is known. The zero Revision, that of
// a read which did not ask, is never known.
func (c *nodeCache) node(revision vault.Revision, name string) (Node, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.revision != revision {
		return Node{}, false
	}
	n, ok := c.nodes[name]
	return n.clone(), ok
}

// list returns all nodes as they are at a revision, if that is known.
func (c *nodeCache) list(revision vault.Revision) ([]Node, bool) {
	c.mu.RLock()
	all, ok := c.all, c.whole && c.revision == revision
	c.mu.RUnlock()
	if !ok {
		return nil, false
	}
	list := make([]Node, len(all)) // what all holds is never changed
	for i, n := range all {
		list[i] = n.clone()
	}
	if len(list) == 0 {
		return nil, true
	}
	return list, true
}

// keep keeps a node that was read after the revision was asked for.
func (c *nodeCache) keep(revision vault.Revision, n Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at(revision) && len(c.nodes) < maxCached {
		c.nodes[n.Name] = n.clone()
	}
}

// keepAll is keep for all nodes at once.
func (c *nodeCache) keepAll(revision vault.Revision, list []Node) {
	if len(list) > maxCached {
		return
	}
	all := make([]Node, len(list))
	nodes := make(map[string]Node, len(list))
	for i, n := range list {
		all[i] = n.clone()
		nodes[n.Name] = all[i]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at(revision) {
		c.all, c.nodes, c.whole = all, nodes, true
	}
}

// at makes the cache one of the revision, and drops what is of an earlier one. It
// reports false where the cache is of a later one already, or the revision was not asked
// for. The lock is held.
func (c *nodeCache) at(revision vault.Revision) bool {
	switch {
	case revision == vault.Revision{}:
		return false
	case revision.Before(c.revision):
		return false
	case c.revision != revision || c.nodes == nil:
		c.revision, c.nodes, c.all, c.whole = revision, map[string]Node{}, nil, false
	}
	return true
}

// clone shares no memory with n.
func (n Node) clone() Node {
	n.Backends = slices.Clone(n.Backends)
	n.Devices = maps.Clone(n.Devices)
	return n
}
