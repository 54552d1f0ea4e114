package registry

import (
	"maps"
	"slices"
	"sync"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// nodeCache keeps the nodes that were read, as long as nobody commits. A reader asks
// for the version of the database first; what is kept for that version was read from
// that state or a later one, so nothing that was committed before the read began is
// missing in it.
type nodeCache struct {
	mu      sync.RWMutex // guards what follows
	version vault.Version
	nodes   map[string]Node
	all     []Node // all of them, in their order; nil: not known
	whole   bool   // all is known
}

// maxCached bounds what is kept, in nodes: some ten megabytes. A larger fleet is read
// from the database each time.
const maxCached = 20_000

// node returns a node as it is at a version, if that is known. The zero Version, that of
// a read which did not ask, is never known.
func (c *nodeCache) node(version vault.Version, name string) (Node, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.version != version {
		return Node{}, false
	}
	n, ok := c.nodes[name]
	return n.clone(), ok
}

// list returns all nodes as they are at a version, if that is known.
func (c *nodeCache) list(version vault.Version) ([]Node, bool) {
	c.mu.RLock()
	all, ok := c.all, c.whole && c.version == version
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

// keep keeps a node that was read after the version was asked for.
func (c *nodeCache) keep(version vault.Version, n Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at(version) && len(c.nodes) < maxCached {
		c.nodes[n.Name] = n.clone()
	}
}

// keepAll is keep for all nodes at once.
func (c *nodeCache) keepAll(version vault.Version, list []Node) {
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
	if c.at(version) {
		c.all, c.nodes, c.whole = all, nodes, true
	}
}

// at makes the cache one of the version, and drops what is of an earlier one. It
// reports false where the cache is of a later one already, or the version was not asked
// for. The lock is held.
func (c *nodeCache) at(version vault.Version) bool {
	switch {
	case version == vault.Version{}:
		return false
	case version.Before(c.version):
		return false
	case c.version != version || c.nodes == nil:
		c.version, c.nodes, c.all, c.whole = version, map[string]Node{}, nil, false
	}
	return true
}

// clone shares no memory with n.
func (n Node) clone() Node {
	n.Backends = slices.Clone(n.Backends)
	n.Devices = maps.Clone(n.Devices)
	return n
}
