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

// NodeRows are the rows of nodes of a backup, ready to be inserted.
type NodeRows struct {
	first, last string // names
	// Arguments of the rows of each table:
	nodes   []any
	details []any
	labels  []any
}

// RowsOfNodes validates nodes. Their state is stored too. The rows keep nothing of the slice and
// of the nodes' lists and maps.
func RowsOfNodes(nodes []Node) (NodeRows, error) {
	rows := NodeRows{nodes: make([]any, 0, len(nodes)*columnCount)}
	for _, n := range nodes {
		n.normalize()
		if err := n.validate(); err != nil {
			return NodeRows{}, fmt.Errorf("insert node %q: %w", n.Name, err)
		}
		rows.add(n)
	}
	return rows, nil
}

// add adds the rows of a normalized node.
func (r *NodeRows) add(n Node) {
	if r.nodes = appendNodeArgs(r.nodes, n); r.first == "" {
		r.first = n.Name
	}
	r.last = n.Name
	if n.ProxyJump != "" || n.Note != "" {
		r.details = append(r.details, n.Name, nullText(n.ProxyJump), nullText(n.Note))
	}
	for _, key := range sortedKeys(n.Labels) {
		r.labels = append(r.labels, n.Name, key, n.Labels[key])
	}
}

// InsertNodeRows stores nodes. A name that exists is ErrExists. It writes no audit row. After an
// error the transaction must not be committed.
func InsertNodeRows(ctx context.Context, tx *vault.Tx, rows NodeRows) error {
	if err := insertNodeRows(ctx, tx, rows); err != nil {
		return fmt.Errorf("insert nodes %q to %q: %w", rows.first, rows.last, err)
	}
	return nil
}

// InsertNodes is [RowsOfNodes] and [InsertNodeRows].
func InsertNodes(ctx context.Context, tx *vault.Tx, nodes ...Node) error {
	rows, err := RowsOfNodes(nodes)
	if err != nil {
		return err
	}
	return InsertNodeRows(ctx, tx, rows)
}
