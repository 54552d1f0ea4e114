package registry

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// besideRows reads a table that has rows for nodes, in the order of the nodes, while
// these are read: one statement for all nodes, and no list of them in memory.
type besideRows struct {
	tx      *vault.Tx
	table   string
	rows    *sql.Rows
	end     bool
	node    string // of the row that was read last, unless end
	values  [2]any
	checked []byte
}

// selectBeside selects two columns of a table. order is what sorts the rows of one node.
func selectBeside(ctx context.Context, tx *vault.Tx, table, first, second, order string) (*besideRows, error) {
	rows, err := tx.QueryContext(ctx, `SELECT
		node_name,
		`+first+`,
		`+second+`,
		`+tx.Checked(table, table)+`
	FROM `+table+`
	ORDER BY `+order)
	if err != nil {
		return nil, err
	}
	b := &besideRows{tx: tx, table: table, rows: rows}
	if err := b.next(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *besideRows) close() { b.rows.Close() }

func (b *besideRows) next() error {
	if !b.rows.Next() {
		b.end = true
		return b.rows.Err()
	}
	if err := b.rows.Scan(&b.node, &b.values[0], &b.values[1], &b.checked); err != nil {
		return fmt.Errorf("%w of %s: %w", ErrBadRow, b.table, err)
	}
	b.tx.CountRow(b.table, b.checked)
	return nil
}

// take calls use with the rows of a node. It is called for all nodes, in their order. A row
// of a node that does not exist is ErrBadRow.
func (b *besideRows) take(node string, use func(values [2]any)) error {
	for !b.end && b.node <= node {
		if b.node < node {
			return b.orphan()
		}
		use(b.values)
		if err := b.next(); err != nil {
			return err
		}
	}
	return nil
}

// finish sees that every row was taken.
func (b *besideRows) finish() error {
	if !b.end {
		return b.orphan()
	}
	return nil
}

func (b *besideRows) orphan() error {
	return fmt.Errorf("%w of %s: there is no node %.80q", ErrBadRow, b.table, b.node)
}

// nullText returns s as a column holds it: "" is NULL.
func nullText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// replaceDetails stores what n has beside its row, where it differs from what old has.
func replaceDetails(ctx context.Context, tx *vault.Tx, old, n Node) error {
	if n.ProxyJump != old.ProxyJump || n.Note != old.Note {
		if err := putDetails(ctx, tx, n); err != nil {
			return err
		}
	}
	for key := range old.Labels {
		if _, ok := n.Labels[key]; !ok {
			if err := deleteLabel(ctx, tx, n.Name, key); err != nil {
				return err
			}
		}
	}
	for key, value := range n.Labels {
		if before, ok := old.Labels[key]; !ok || before != value {
			if err := putLabel(ctx, tx, n.Name, key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// putDetails stores jump and note, as a row only where there is one of them.
func putDetails(ctx context.Context, tx *vault.Tx, n Node) error {
	if n.ProxyJump == "" && n.Note == "" {
		_, err := tx.ExecContext(ctx, `DELETE FROM node_details WHERE node_name = ?`, n.Name)
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO node_details (
		node_name,
		proxy_jump,
		note
	) VALUES (?, ?, ?)
	ON CONFLICT (node_name) DO UPDATE SET
		proxy_jump = excluded.proxy_jump,
		note = excluded.note`,
		n.Name,
		nullText(n.ProxyJump),
		nullText(n.Note),
	)
	return err
}

func putLabel(ctx context.Context, tx *vault.Tx, node, key, value string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO node_labels (
		node_name,
		key,
		value
	) VALUES (?, ?, ?)
	ON CONFLICT (node_name, key) DO UPDATE SET
		value = excluded.value`,
		node,
		key,
		value,
	)
	return err
}

func deleteLabel(ctx context.Context, tx *vault.Tx, node, key string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM node_labels WHERE node_name = ? AND key = ?`, node, key)
	return err
}

// selectJumps returns the jumps of all nodes.
func selectJumps(ctx context.Context, tx *vault.Tx) (jumps, error) {
	rows, err := tx.QueryContext(ctx, `SELECT
		node_name,
		proxy_jump
	FROM node_details
	WHERE proxy_jump IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := jumps{}
	for rows.Next() {
		var node, jump string
		if err := rows.Scan(&node, &jump); err != nil {
			return nil, err
		}
		all[node] = jump
	}
	return all, rows.Err()
}

// selectJumpers returns the other nodes that are reached through a node: the first of them
// by name, at most max, and how many there are.
func selectJumpers(ctx context.Context, tx *vault.Tx, jump string, max int) (first []string, count int, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT node_name FROM node_details WHERE proxy_jump = ? AND node_name != proxy_jump ORDER BY node_name`, jump)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, 0, err
		}
		if count++; count <= max {
			first = append(first, name)
		}
	}
	return first, count, rows.Err()
}
