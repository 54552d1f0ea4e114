package backup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// index checks that the rows of a backup are in their order, each once, and that what they
// refer to is there. It holds a few bytes for each node.
type index struct {
	last  string   // what came last in the member
	nodes *hashSet // names
	jumps []jump   // of the nodes that have one
	keyed []bool   // by index in nodes: the node has an SSH key
	keys  *hashSet // fingerprints
}

// jump is a node that is reached through another, by their hashes.
type jump struct{ node, through uint64 }

func newIndex(c Counts) *index {
	return &index{nodes: newHashSet(c.Nodes), keys: newHashSet(c.SSHKeys)}
}

// follow checks that a row comes behind the one before. Its key sorts as the member does.
func (x *index) follow(key string) error {
	if key <= x.last {
		return errors.New("a row is out of order, or comes twice")
	}
	x.last = key
	return nil
}

// end is the end of a member.
func (x *index) end() { x.last = "" }

func (x *index) addNode(n registry.Node) error {
	x.nodes.add(n.Name)
	if n.ProxyJump != "" {
		x.jumps = append(x.jumps, jump{x.nodes.hash(n.Name), x.nodes.hash(n.ProxyJump)})
	}
	return x.follow(n.Name)
}

// checkJumps checks that each node is reached through nodes that are there, and through few: a
// node may jump through one that follows it.
func (x *index) checkJumps() error {
	slices.SortFunc(x.jumps, func(a, b jump) int { return cmp.Compare(a.node, b.node) })
	for _, j := range x.jumps {
		if !x.nodes.hasHash(j.through) {
			return errors.New("a node jumps through one that is missing")
		}
		for hops := 1; ; hops++ {
			if hops > registry.MaxJumps {
				return fmt.Errorf("a node is reached through more than %d others, or in a circle", registry.MaxJumps)
			}
			at, ok := slices.BinarySearchFunc(x.jumps, j.through, func(j jump, node uint64) int { return cmp.Compare(j.node, node) })
			if !ok {
				break
			}
			j = x.jumps[at]
		}
	}
	x.jumps = nil
	return nil
}

// requireNode checks that there is a node.
func (x *index) requireNode(name string) error {
	if !x.nodes.has(name) {
		return fmt.Errorf("there is no node %q", name)
	}
	return nil
}

func (x *index) addSSHKey(k registry.SSHKey) error {
	if x.keyed == nil {
		x.keyed = make([]bool, len(x.nodes.hashes))
	}
	for _, name := range k.Nodes {
		at, ok := x.nodes.find(name)
		if !ok {
			return fmt.Errorf("there is no node %q", name)
		}
		if x.keyed[at] {
			return fmt.Errorf("node %q has two SSH keys", name)
		}
		x.keyed[at] = true
	}
	x.keys.add(k.Fingerprint)
	return x.follow(k.Fingerprint)
}

func (x *index) addRotation(k registry.KeyRotation) error {
	if err := x.requireNode(k.Node); err != nil {
		return err
	}
	for _, fingerprint := range []string{k.Old, k.New} {
		if !x.keys.has(fingerprint) {
			return fmt.Errorf("there is no SSH key %q", fingerprint)
		}
	}
	return x.follow(k.Node)
}

func (x *index) addHostKey(k registry.HostKey) error {
	if err := x.requireNode(k.Node); err != nil {
		return err
	}
	// A zero byte is in none of them, so the text sorts as the fields do.
	return x.follow(k.Node + "\x00" + k.Type + "\x00" + k.PublicKey)
}
