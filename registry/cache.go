package registry

import (
	"maps"
	"slices"
	"sync"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// nodeCache keeps the nodes that were read, as long as nobody commits. A reader asks
// for the revision of the database first and reads then. So the nodes kept for a
// revision are of that revision or a later one: everything that was committed
// before the read began is in them.
type nodeCache struct {
	mu       sync.RWMutex   // guards all fields
	revision vault.Revision // of the nodes
	nodes    map[string]Node
	whole    bool   // all holds every node of the revision
	all      []Node // by name; never changed, only replaced
}

// maxCached limits the nodes that are kept, to about ten megabytes. A larger fleet
// is read from the database each time.
const maxCached = 20_000

// node returns a node as of a revision, if the cache has it. It never has the zero
// Revision; see Registry.revision.
func (c *nodeCache) node(revision vault.Revision, name string) (Node, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.revision != revision {
		return Node{}, false
	}
	n, ok := c.nodes[name]
	return n.clone(), ok
}

// list returns all nodes as of a revision, if the cache has them.
func (c *nodeCache) list(revision vault.Revision) ([]Node, bool) {
	c.mu.RLock()
	all, ok := c.all, c.whole && c.revision == revision
	c.mu.RUnlock()
	if !ok {
		return nil, false
	}
	list := make([]Node, len(all))
	for i, n := range all {
		list[i] = n.clone()
	}
	if len(list) == 0 {
		return nil, true
	}
	return list, true
}

// keep keeps a node that was read after the revision was.
func (c *nodeCache) keep(revision vault.Revision, n Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moveTo(revision) && len(c.nodes) < maxCached {
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
	if c.moveTo(revision) {
		c.all, c.nodes, c.whole = all, nodes, true
	}
}

// moveTo makes the cache one of the revision and drops the nodes of an earlier one.
// It reports false for the zero Revision, and where the cache is of a later revision
// already. The caller holds the lock.
func (c *nodeCache) moveTo(revision vault.Revision) bool {
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

// clone returns a copy that shares no memory with n.
func (n Node) clone() Node {
	n.Backends = slices.Clone(n.Backends)
	n.Devices = maps.Clone(n.Devices)
	n.Labels = maps.Clone(n.Labels)
	return n
}
