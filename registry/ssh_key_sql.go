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

// sqlSelectSSHKeys selects keys, a row for each node that uses one, and two columns
// beside them: of the key, and of its use.
func sqlSelectSSHKeys(keyColumn, useColumn string) string {
	return `SELECT
	k.fingerprint,
	k.type,
	k.public_key,
	k.comment,
	k.created,
	k.used,
	n.node_name,
	` + keyColumn + `,
	` + useColumn + `
FROM ssh_keys AS k
LEFT JOIN beehive_ssh_keys AS n ON n.fingerprint = k.fingerprint `
}

// selectSSHKeys yields the keys of one of the two queries by fingerprint, each with
// its nodes by name.
func selectSSHKeys(ctx context.Context, tx *vault.Tx, query string, args ...any) iter.Seq2[SSHKey, error] {
	return func(yield func(SSHKey, error) bool) {
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			yield(SSHKey{}, err)
			return
		}
		defer rows.Close()
		var last SSHKey // one row a node; yielded when the next key begins
		for rows.Next() {
			k, key, use, err := scanSSHKey(rows)
			if err != nil {
				yield(SSHKey{}, err)
				return
			}
			if k.Fingerprint != last.Fingerprint {
				tx.CountRow("ssh_keys", key)
			}
			if k.Nodes != nil {
				tx.CountRow("beehive_ssh_keys", use)
			}
			if k.Fingerprint == last.Fingerprint {
				last.Nodes = append(last.Nodes, k.Nodes...)
				continue
			}
			if last.Fingerprint != "" && !yield(last, nil) {
				return
			}
			last = k
		}
		if err := rows.Err(); err != nil {
			yield(SSHKey{}, err)
			return
		}
		if last.Fingerprint != "" {
			yield(last, nil)
		}
	}
}

func scanSSHKey(rows *sql.Rows) (k SSHKey, key, use []byte, err error) {
	var (
		created int64
		used    sql.NullInt64
		node    sql.NullString
	)
	err = rows.Scan(
		&k.Fingerprint,
		&k.Type,
		&k.PublicKey,
		&k.Comment,
		&created,
		&used,
		&node,
		&key,
		&use,
	)
	if err != nil {
		return SSHKey{}, nil, nil, fmt.Errorf("%w %.80q: %w", ErrBadRow, k.Fingerprint, err)
	}
	k.Created = time.UnixMilli(created).UTC()
	if used.Valid {
		k.Used = time.UnixMilli(used.Int64).UTC()
	}
	if node.Valid {
		k.Nodes = []string{node.String}
	}
	return k, key, use, nil
}

// selectSealedSSHKey returns ErrNotFound where there is no such key.
func selectSealedSSHKey(ctx context.Context, tx *vault.Tx, fingerprint string) ([]byte, error) {
	var sealed []byte
	err := tx.QueryRowContext(ctx, `SELECT private_key FROM ssh_keys WHERE fingerprint = ?`, fingerprint).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	return sealed, err
}

// selectNodeSSHKey returns the fingerprint of a node's key, or "".
func selectNodeSSHKey(ctx context.Context, tx *vault.Tx, name string) (string, error) {
	var fingerprint string
	err := tx.QueryRowContext(ctx, `SELECT fingerprint FROM beehive_ssh_keys WHERE node_name = ?`, name).Scan(&fingerprint)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return fingerprint, err
}

// selectSSHKey returns ErrNotFound where there is no such key.
func selectSSHKey(ctx context.Context, tx *vault.Tx, fingerprint string) (SSHKey, error) {
	for k, err := range selectSSHKeys(ctx, tx, sqlSelectSSHKeys("NULL", "NULL")+`WHERE k.fingerprint = ? ORDER BY n.node_name`, fingerprint) {
		return k, err
	}
	return SSHKey{}, ErrNotFound
}

// selectSSHKeyNodes returns the names of the nodes that use the key.
func selectSSHKeyNodes(ctx context.Context, tx *vault.Tx, fingerprint string) ([]string, error) {
	rows, err := tx.QueryContext(ctx, `SELECT node_name FROM beehive_ssh_keys WHERE fingerprint = ? ORDER BY node_name`, fingerprint)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// replaceNodeSSHKey has a node use another key; "" none.
func replaceNodeSSHKey(ctx context.Context, tx *vault.Tx, name, fingerprint string) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM beehive_ssh_keys WHERE node_name = ?`, name); err != nil || fingerprint == "" {
		return err
	}
	return insertNodeSSHKey(ctx, tx, name, fingerprint)
}

// updateSSHKeyUsed returns ErrNotFound where there is no such key.
func updateSSHKeyUsed(ctx context.Context, tx *vault.Tx, fingerprint string, at time.Time) error {
	res, err := tx.ExecContext(ctx, `UPDATE ssh_keys SET used = ? WHERE fingerprint = ?`, at.UnixMilli(), fingerprint)
	return expectRow(res, err, ErrNotFound)
}

// insertSSHKey returns ErrExists where the key is there.
func insertSSHKey(ctx context.Context, tx *vault.Tx, k SSHKey, sealed []byte) error {
	used := sql.NullInt64{Int64: k.Used.UnixMilli(), Valid: !k.Used.IsZero()}
	res, err := tx.ExecContext(ctx, `INSERT INTO ssh_keys (
		fingerprint,
		type,
		public_key,
		comment,
		private_key,
		created,
		used
	) VALUES (?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (fingerprint) DO NOTHING`,
		k.Fingerprint,
		k.Type,
		k.PublicKey,
		k.Comment,
		sealed,
		k.Created.UnixMilli(),
		used,
	)
	return expectRow(res, err, ErrExists)
}

// insertNodeSSHKey returns ErrExists where the node has a key.
func insertNodeSSHKey(ctx context.Context, tx *vault.Tx, name, fingerprint string) error {
	res, err := tx.ExecContext(ctx, `INSERT INTO beehive_ssh_keys (
		node_name,
		fingerprint
	) VALUES (?, ?)
	ON CONFLICT (node_name) DO NOTHING`, name, fingerprint)
	return expectRow(res, err, ErrExists)
}

// deleteUnusedSSHKey reports whether it deleted the key: not while a node uses
// it.
func deleteUnusedSSHKey(ctx context.Context, tx *vault.Tx, fingerprint string) (bool, error) {
	return touchedRow(tx.ExecContext(ctx, `DELETE FROM ssh_keys
	WHERE fingerprint = ?
		AND NOT EXISTS (SELECT 1 FROM beehive_ssh_keys AS n WHERE n.fingerprint = ssh_keys.fingerprint)`, fingerprint))
}
