package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// nodeColumns are nodeFields, in their order.
const nodeColumns = `
	node_name,
	ssh_host,
	ssh_port,
	ssh_user,
	ssh_key_path,
	git_repo_url,
	git_branch,
	install_path,
	last_connected_unix,
	status,
	backends,
	devices`

// sqlSelectNode selects a node in as many rows as it has labels, at least one.
const sqlSelectNode = `SELECT` + nodeColumns + `,
	proxy_jump,
	note,
	node_labels.key,
	node_labels.value
	FROM beehives
	LEFT JOIN node_details USING (node_name)
	LEFT JOIN node_labels USING (node_name)
	WHERE beehives.node_name = ?
	ORDER BY node_labels.key`

// sqlSelectNodes selects all nodes. checked is the expression that
// [vault.Tx.Checked] wants beside them.
func sqlSelectNodes(checked string) string {
	return `SELECT` + nodeColumns + `,
	` + checked + `
	FROM beehives
	ORDER BY node_name`
}

// selectNode returns ErrNotFound where there is no such node.
func selectNode(ctx context.Context, tx *vault.Tx, name string) (Node, error) {
	// For a context that can be cancelled, the driver starts a goroutine for each
	// row. That takes longer than reading the row.
	rows, err := tx.QueryContext(context.WithoutCancel(ctx), sqlSelectNode, name)
	if err != nil {
		return Node{}, err
	}
	defer rows.Close()
	row := newNodeRow()
	var details nodeDetails
	var label [2]any
	ptrs := append(row.ptrs[:], &details.proxyJump, &details.note, &label[0], &label[1])
	found := false
	for rows.Next() {
		if err := rows.Scan(ptrs...); err != nil {
			return Node{}, err
		}
		found = true
		if label[0] != nil {
			details.labels = append(details.labels, label)
		}
	}
	if err := rows.Err(); err != nil {
		return Node{}, err
	}
	if !found {
		return Node{}, ErrNotFound
	}
	return row.node(details)
}

// selectNodes yields all nodes by name, in binary order. It stops at the first
// error.
func selectNodes(ctx context.Context, tx *vault.Tx) iter.Seq2[Node, error] {
	return func(yield func(Node, error) bool) {
		if err := eachNode(ctx, tx, func(n Node) bool { return yield(n, nil) }); err != nil {
			yield(Node{}, err)
		}
	}
}

// eachNode calls use with all nodes, until it returns false.
func eachNode(ctx context.Context, tx *vault.Tx, use func(Node) bool) error {
	uncancelled := context.WithoutCancel(ctx) // as in selectNode; the loop asks ctx itself
	rows, err := tx.QueryContext(uncancelled, sqlSelectNodes(tx.Checked("beehives", "beehives")))
	if err != nil {
		return err
	}
	defer rows.Close()
	details, err := selectBeside(uncancelled, tx, "node_details", "proxy_jump", "note", "node_name")
	if err != nil {
		return err
	}
	defer details.close()
	labels, err := selectBeside(uncancelled, tx, "node_labels", "key", "value", "node_name, key")
	if err != nil {
		return err
	}
	defer labels.close()
	row := newNodeRow()
	var checked []byte
	ptrs := append(row.ptrs[:], &checked)
	var d nodeDetails // of the row; its memory is used again
	useDetails := func(v [2]any) { d.proxyJump, d.note = v[0], v[1] }
	useLabel := func(v [2]any) { d.labels = append(d.labels, v) }
	for rows.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := rows.Scan(ptrs...); err != nil {
			return err
		}
		tx.CountRow("beehives", checked)
		name, _ := row.values[colName].(string)
		d = nodeDetails{labels: d.labels[:0]}
		if err := errors.Join(details.take(name, useDetails), labels.take(name, useLabel)); err != nil {
			return err
		}
		n, err := row.node(d)
		if err != nil {
			return err
		}
		if !use(n) {
			return nil
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return errors.Join(details.finish(), labels.finish())
}

// requireNode returns ErrNotFound where there is no such node.
func requireNode(ctx context.Context, tx *vault.Tx, name string) error {
	found, err := nodeExists(ctx, tx, name)
	if err == nil && !found {
		err = ErrNotFound
	}
	return err
}

func nodeExists(ctx context.Context, tx *vault.Tx, name string) (bool, error) {
	var one int
	err := tx.QueryRowContext(ctx, `SELECT 1 FROM beehives WHERE node_name = ?`, name).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// appendNodeArgs appends the values of nodeColumns of a normalized node.
func appendNodeArgs(args []any, n Node) []any {
	var keyPath, lastConnected, backends, devices any // NULL
	if n.SSHKeyPath != "" {
		keyPath = n.SSHKeyPath
	}
	if !n.LastConnected.IsZero() {
		lastConnected = n.LastConnected.Unix()
	}
	if n.Backends != nil {
		backends = formatBackends(n.Backends)
	}
	if n.Devices != nil {
		devices = formatDevices(n.Devices)
	}
	return append(args,
		n.Name,
		n.SSHHost,
		int64(n.SSHPort),
		n.SSHUser,
		keyPath,
		n.GitRepoURL,
		n.GitBranch,
		n.InstallPath,
		lastConnected,
		string(n.Status),
		backends,
		devices,
	)
}

// insertNode returns ErrExists where the name exists. The node that it jumps through may follow.
func insertNode(ctx context.Context, tx *vault.Tx, n Node) error {
	var rows NodeRows
	rows.add(n)
	return insertNodeRows(ctx, tx, rows)
}

// insertNodeRows is insertNode for many nodes.
func insertNodeRows(ctx context.Context, tx *vault.Tx, rows NodeRows) error {
	inserted, err := tx.InsertRows(ctx, "beehives", nodeFields[:], "ON CONFLICT (node_name) DO NOTHING", rows.nodes)
	if err == nil && inserted != int64(len(rows.nodes)/columnCount) {
		err = ErrExists
	}
	if err != nil {
		return err
	}
	_, err = tx.InsertRows(ctx, "node_details", []string{"node_name", "proxy_jump", "note"}, "", rows.details)
	if err == nil {
		_, err = tx.InsertRows(ctx, "node_labels", []string{"node_name", "key", "value"}, "", rows.labels)
	}
	return err
}

// updateNode writes every column but the name, and what differs from old beside the row.
func updateNode(ctx context.Context, tx *vault.Tx, old, n Node) error {
	args := append(appendNodeArgs(nil, n)[colName+1:], n.Name) // the name stands in WHERE
	res, err := tx.ExecContext(ctx, `UPDATE beehives SET
		ssh_host = ?,
		ssh_port = ?,
		ssh_user = ?,
		ssh_key_path = ?,
		git_repo_url = ?,
		git_branch = ?,
		install_path = ?,
		last_connected_unix = ?,
		status = ?,
		backends = ?,
		devices = ?
	WHERE node_name = ?`, args...)
	if err := expectRow(res, err, ErrNotFound); err != nil {
		return err
	}
	return replaceDetails(ctx, tx, old, n)
}

// renameNode renames the node in its rows of other tables too, and where others jump
// through it: they cascade.
func renameNode(ctx context.Context, tx *vault.Tx, name, newName string) error {
	res, err := tx.ExecContext(ctx, `UPDATE beehives SET
		node_name = ?
	WHERE node_name = ?`, newName, name)
	return expectRow(res, err, ErrNotFound)
}

// deleteNode reports whether there was such a node. Its rows of other tables are deleted
// by cascade.
func deleteNode(ctx context.Context, tx *vault.Tx, name string) (bool, error) {
	return touchedRow(tx.ExecContext(ctx, `DELETE FROM beehives WHERE node_name = ?`, name))
}

// touchedRow reports whether a statement touched a row.
func touchedRow(res sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// expectRow returns missing where a statement touched no row.
func expectRow(res sql.Result, err, missing error) error {
	touched, err := touchedRow(res, err)
	if err == nil && !touched {
		err = missing
	}
	return err
}

// selectStates returns the states of all nodes, by name. A row whose state cannot
// be read is ErrBadRow.
func selectStates(ctx context.Context, tx *vault.Tx) (map[string]State, error) {
	rows, err := tx.QueryContext(ctx, `SELECT
		node_name,
		status,
		last_connected_unix
	FROM beehives`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	states := map[string]State{}
	for rows.Next() {
		var s State
		var last sql.NullInt64
		if err := rows.Scan(&s.Node, &s.Status, &last); err != nil {
			return nil, fmt.Errorf("%w %.80q: %w", ErrBadRow, s.Node, err)
		}
		if last.Valid {
			s.LastConnected = time.Unix(last.Int64, 0).UTC()
		}
		states[s.Node] = s
	}
	return states, rows.Err()
}

func updateNodeState(ctx context.Context, tx *vault.Tx, s State) error {
	last := sql.NullInt64{Int64: s.LastConnected.Unix(), Valid: !s.LastConnected.IsZero()}
	res, err := tx.ExecContext(ctx, `UPDATE beehives SET
		status = ?,
		last_connected_unix = ?
	WHERE node_name = ?`, string(s.Status), last, s.Node)
	return expectRow(res, err, ErrNotFound)
}
