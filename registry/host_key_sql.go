package registry

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

const (
	hostKeyColumns = `
		node_name,
		type,
		public_key,
		first_seen,
		last_seen`

	sqlSelectNodeHostKeys = `SELECT` + hostKeyColumns + `,
		NULL
	FROM host_keys
	WHERE node_name = ?
	ORDER BY type, public_key`
)

// sqlSelectHostKeys selects all host keys. checked is the expression that
// [vault.Tx.Checked] wants beside them.
func sqlSelectHostKeys(checked string) string {
	return `SELECT` + hostKeyColumns + `,
		` + checked + `
	FROM host_keys
	ORDER BY node_name, type, public_key`
}

// selectNodeHostKeys returns a node's host keys by type and public key.
func selectNodeHostKeys(ctx context.Context, tx *vault.Tx, name string) ([]HostKey, error) {
	var keys []HostKey
	for k, err := range selectHostKeys(ctx, tx, sqlSelectNodeHostKeys, name) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// selectHostKeys yields the host keys of sqlSelectHostKeys or
// sqlSelectNodeHostKeys. It does not validate them.
func selectHostKeys(ctx context.Context, tx *vault.Tx, query string, args ...any) iter.Seq2[HostKey, error] {
	return func(yield func(HostKey, error) bool) {
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			yield(HostKey{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var (
				k           HostKey
				first, last int64
				checked     []byte
			)
			err := rows.Scan(
				&k.Node,
				&k.Type,
				&k.PublicKey,
				&first,
				&last,
				&checked,
			)
			if err != nil {
				yield(HostKey{}, fmt.Errorf("%w: host key of node %.80q: %w", ErrBadRow, k.Node, err))
				return
			}
			tx.CountRow("host_keys", checked)
			k.FirstSeen = time.UnixMilli(first).UTC()
			k.LastSeen = time.UnixMilli(last).UTC()
			if !yield(k, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(HostKey{}, err)
		}
	}
}

// selectKnownHosts yields all host keys, each with the address of its node. It does not
// validate them.
func selectKnownHosts(ctx context.Context, tx *vault.Tx) iter.Seq2[KnownHost, error] {
	return func(yield func(KnownHost, error) bool) {
		rows, err := tx.QueryContext(ctx, `SELECT`+hostKeyColumns+`,
		ssh_host,
		ssh_port,
		`+tx.Checked("host_keys", "host_keys")+`
	FROM host_keys
	JOIN beehives USING (node_name)
	ORDER BY node_name, type, public_key`)
		if err != nil {
			yield(KnownHost{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var (
				k           HostKey
				first, last int64
				node        Node
				checked     []byte
			)
			err := rows.Scan(
				&k.Node,
				&k.Type,
				&k.PublicKey,
				&first,
				&last,
				&node.SSHHost,
				&node.SSHPort,
				&checked,
			)
			if err != nil {
				yield(KnownHost{}, fmt.Errorf("%w: host key of node %.80q: %w", ErrBadRow, k.Node, err))
				return
			}
			tx.CountRow("host_keys", checked)
			k.FirstSeen, k.LastSeen = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
			if !yield(KnownHost{k, node.KnownHostsAddress()}, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(KnownHost{}, err)
		}
	}
}

func countNodeHostKeys(ctx context.Context, tx *vault.Tx, name string) (int, error) {
	var n int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM host_keys WHERE node_name = ?`, name).Scan(&n)
	return n, err
}

// insertHostKeys returns ErrExists where a node has one of the keys. It does not ask whether
// the nodes exist: a foreign key does.
func insertHostKeys(ctx context.Context, tx *vault.Tx, keys []HostKey) error {
	args := make([]any, 0, len(keys)*5)
	for _, k := range keys {
		args = append(args,
			k.Node,
			k.Type,
			k.PublicKey,
			k.FirstSeen.UnixMilli(),
			k.LastSeen.UnixMilli(),
		)
	}
	inserted, err := tx.InsertRows(ctx, "host_keys", []string{"node_name", "type", "public_key", "first_seen", "last_seen"},
		"ON CONFLICT (node_name, public_key) DO NOTHING", args)
	if err == nil && inserted != int64(len(keys)) {
		err = ErrExists
	}
	return err
}

// updateHostKeySeen stores LastSeen of a pinned key, unless a later time is stored.
func updateHostKeySeen(ctx context.Context, tx *vault.Tx, k HostKey) error {
	res, err := tx.ExecContext(ctx, `UPDATE host_keys SET
		last_seen = max(last_seen, ?)
	WHERE node_name = ? AND public_key = ?`,
		k.LastSeen.UnixMilli(),
		k.Node,
		k.PublicKey,
	)
	return expectRow(res, err, ErrNotFound)
}

func deleteHostKey(ctx context.Context, tx *vault.Tx, k HostKey) error {
	res, err := tx.ExecContext(ctx, `DELETE FROM host_keys WHERE node_name = ? AND public_key = ?`, k.Node, k.PublicKey)
	return expectRow(res, err, ErrNotFound)
}
