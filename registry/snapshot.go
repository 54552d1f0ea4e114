package registry

import (
	"context"
	"fmt"
	"iter"
	"slices"
)

// Snapshot is all nodes at one moment. It does not change, and is safe for concurrent use.
type Snapshot struct {
	nodes []*Node // by name; shared with the cache, and changed by nobody
}

// Snapshot returns the nodes as they are now. It shares memory with the registry: many
// snapshots of a large fleet cost little.
func (r *Registry) Snapshot(ctx context.Context) (Snapshot, error) {
	nodes, err := r.snapshot(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("list nodes: %w", err)
	}
	return Snapshot{nodes}, nil
}

func (r *Registry) snapshot(ctx context.Context) ([]*Node, error) {
	revision, err := r.refresh(ctx)
	if err != nil {
		return nil, err
	}
	if all, ok := r.cache.list(revision); ok {
		return all, nil
	}
	return r.loadAll(ctx, revision)
}

// Len returns how many nodes there are.
func (s Snapshot) Len() int { return len(s.nodes) }

// Nodes returns the nodes by name, in binary order. The caller may change them.
func (s Snapshot) Nodes() []Node {
	if len(s.nodes) == 0 {
		return nil
	}
	list := make([]Node, len(s.nodes))
	for i, n := range s.nodes {
		list[i] = n.clone()
	}
	return list
}

// All yields the nodes by name. The caller changes none of them.
func (s Snapshot) All() iter.Seq[*Node] { return slices.Values(s.nodes) }

// Since yields what changed since an older snapshot, by name. A renamed node is one that was
// removed and one that was added. The caller may change what it gets.
func (s Snapshot) Since(older Snapshot) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		before, after := older.nodes, s.nodes
		for len(before)+len(after) > 0 {
			// A node that nobody wrote is the same pointer: most nodes are not looked at.
			if n := commonPrefix(before, after); n > 0 {
				before, after = before[n:], after[n:]
				continue
			}
			var c Change
			switch {
			case len(after) == 0 || len(before) > 0 && before[0].Name < after[0].Name:
				c = Change{Name: before[0].Name, Before: before[0]}
				before = before[1:]
			case len(before) == 0 || after[0].Name < before[0].Name:
				c = Change{Name: after[0].Name, After: after[0]}
				after = after[1:]
			default:
				c = Change{Name: after[0].Name, Before: before[0], After: after[0]}
				before, after = before[1:], after[1:]
				if sameNode(*c.Before, *c.After) {
					continue
				}
			}
			if !yield(c.clone()) {
				return
			}
		}
	}
}

// commonPrefix returns how many nodes at the beginning of two lists are the same pointers.
func commonPrefix(a, b []*Node) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
