package registry

import (
	"context"
	"fmt"
	"iter"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Totals is how many nodes and keys a vault has.
type Totals struct {
	Nodes    int
	SSHKeys  int
	HostKeys int
	// Rotations is how many nodes have a key that is being replaced.
	Rotations int
}

// Counts returns the totals as the transaction sees them.
func Counts(ctx context.Context, tx *vault.Tx) (Totals, error) {
	var t Totals
	err := tx.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM beehives),
		(SELECT count(*) FROM ssh_keys),
		(SELECT count(*) FROM host_keys),
		(SELECT count(*) FROM key_rotations)`).Scan(
		&t.Nodes,
		&t.SSHKeys,
		&t.HostKeys,
		&t.Rotations,
	)
	if err != nil {
		return Totals{}, fmt.Errorf("count rows: %w", err)
	}
	return t, nil
}

// EachNode yields all nodes by name, in binary order. It stops after an error. Other
// statements may run in tx during the iteration.
func EachNode(ctx context.Context, tx *vault.Tx) iter.Seq2[Node, error] {
	return func(yield func(Node, error) bool) {
		for n, err := range selectNodes(ctx, tx) {
			if err != nil {
				err = fmt.Errorf("read nodes: %w", err)
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

// InsertNodes stores nodes of a backup with their state. A name that exists is ErrExists.
// It writes no audit row. After an error the transaction must not be committed.
func InsertNodes(ctx context.Context, tx *vault.Tx, nodes ...Node) error {
	stored := make([]Node, len(nodes))
	for i, n := range nodes {
		stored[i] = n.normalized()
		if err := stored[i].validate(); err != nil {
			return fmt.Errorf("insert node %q: %w", n.Name, err)
		}
	}
	if err := insertNodes(ctx, tx, stored); err != nil {
		return fmt.Errorf("insert nodes %q to %q: %w", nodes[0].Name, nodes[len(nodes)-1].Name, err)
	}
	return nil
}
