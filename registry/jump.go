package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// MaxJumps is the most nodes that one node is reached through.
const MaxJumps = 8

const (
	ruleJumpBack    = "must not lead back to the node"
	ruleJumpMissing = "must name a node of the registry"
)

var ruleJumpMany = fmt.Sprintf("must lead through at most %d nodes", MaxJumps)

// jumps has, by the name of a node, the node that it is reached through.
type jumps map[string]string

// set sets the jump of a node; "" is none.
func (j jumps) set(node, jump string) {
	if jump == "" {
		delete(j, node)
	} else {
		j[node] = jump
	}
}

// rule returns the rule that the way to a node breaks, or "". It does not ask whether the
// nodes exist.
func (j jumps) rule(node string) string {
	hops := 0
	for at := j[node]; at != ""; at = j[at] {
		if at == node {
			return ruleJumpBack
		}
		if hops++; hops > MaxJumps {
			return ruleJumpMany
		}
	}
	return ""
}

// leadsThrough reports whether the way to a node leads through one of the others.
func (j jumps) leadsThrough(node string, others []string) bool {
	at := j[node]
	for hops := 0; at != "" && hops <= MaxJumps; hops++ {
		if slices.Contains(others, at) {
			return true
		}
		at = j[at]
	}
	return false
}

// check checks the ways to the nodes whose jump was changed, and to those behind them. The
// error is a *FieldError, and names the node unless it is self.
func (j jumps) check(self string, changed []string) error {
	for _, name := range changed {
		if rule := j.rule(name); rule != "" {
			return jumpError(self, name, rule)
		}
	}
	for name := range j {
		if rule := j.rule(name); rule != "" && j.leadsThrough(name, changed) {
			return jumpError(self, name, rule)
		}
	}
	return nil
}

func jumpError(self, name, rule string) error {
	err := error(&FieldError{Field: "proxy_jump", Rule: rule})
	if name != self {
		err = fmt.Errorf("node %q: %w", name, err)
	}
	return err
}

// changedJumps returns the node's name where it has another jump than before.
func changedJumps(old, n Node) []string {
	if n.ProxyJump == old.ProxyJump || n.ProxyJump == "" {
		return nil
	}
	return []string{n.Name}
}

// maxJumpersNamed is how many nodes an error names.
const maxJumpersNamed = 10

// errJumpedThrough says which nodes are reached through a node.
func errJumpedThrough(first []string, count int) error {
	names := strings.Join(first, ", ")
	if count > len(first) {
		names += fmt.Sprintf(" and %d more", count-len(first))
	}
	return fmt.Errorf("%w: %s jump through it", ErrInUse, names)
}

// checkJumps checks nodes whose jump the transaction has changed: it leads to a node, not
// in a circle, and not through too many, and so for the nodes behind them. The error is a
// *FieldError, and names the node unless it is self.
func checkJumps(ctx context.Context, tx *vault.Tx, self string, changed []string) error {
	if len(changed) == 0 {
		return nil
	}
	stored, err := selectJumps(ctx, tx)
	if err != nil {
		return err
	}
	for _, name := range changed {
		jump := stored[name]
		if jump == "" {
			continue
		}
		if exists, err := nodeExists(ctx, tx, jump); err != nil {
			return err
		} else if !exists {
			return jumpError(self, name, ruleJumpMissing)
		}
	}
	return stored.check(self, changed)
}

// Jumps returns the jumps of all nodes that have one: by the name of a node, the node that
// it is reached through.
func (r *Registry) Jumps(ctx context.Context) (map[string]string, error) {
	var all jumps
	err := r.v.View(ctx, func(tx *vault.Tx) (err error) {
		all, err = selectJumps(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list jumps: %w", err)
	}
	return all, nil
}
