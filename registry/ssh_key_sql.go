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

// sqlSelectSSHKeys selects keys: one row for each node that uses a key, and one
// row without a node for a key that no node uses. rest is what follows FROM. The
// other two are the expressions that [vault.Tx.Checked] wants beside the rows of
// ssh_keys and of beehive_ssh_keys.
func sqlSelectSSHKeys(checkedKey, checkedUse, rest string) string {
	return `SELECT
		ssh_keys.fingerprint,
		ssh_keys.type,
		ssh_keys.public_key,
		ssh_keys.comment,
		ssh_keys.created,
		ssh_keys.used,
		beehive_ssh_keys.node_name,
		` + checkedKey + `,
		` + checkedUse + `
	FROM ssh_keys
	LEFT JOIN beehive_ssh_keys ON beehive_ssh_keys.fingerprint = ssh_keys.fingerprint
	` + rest
}

// selectAllSSHKeys yields the keys by fingerprint, each with its nodes by name.
func selectAllSSHKeys(ctx context.Context, tx *vault.Tx) iter.Seq2[SSHKey, error] {
	return selectSSHKeys(ctx, tx, sqlSelectSSHKeys(
		tx.Checked("ssh_keys", "ssh_keys"),
		tx.Checked("beehive_ssh_keys", "beehive_ssh_keys"),
		`ORDER BY ssh_keys.fingerprint, beehive_ssh_keys.node_name`))
}

// selectSSHKeys yields the keys of a query of sqlSelectSSHKeys. The rows of a key
// must follow each other.
func selectSSHKeys(ctx context.Context, tx *vault.Tx, query string, args ...any) iter.Seq2[SSHKey, error] {
	return func(yield func(SSHKey, error) bool) {
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			yield(SSHKey{}, err)
			return
		}
		defer rows.Close()
		var key SSHKey // collects its nodes until the next key begins
		for rows.Next() {
			k, checkedKey, checkedUse, err := scanSSHKey(rows)
			if err != nil {
				yield(SSHKey{}, err)
				return
			}
			if k.Nodes != nil {
				tx.CountRow("beehive_ssh_keys", checkedUse)
			}
			if k.Fingerprint == key.Fingerprint {
				key.Nodes = append(key.Nodes, k.Nodes...)
				continue
			}
			tx.CountRow("ssh_keys", checkedKey)
			if key.Fingerprint != "" && !yield(key, nil) {
				return
			}
			key = k
		}
		if err := rows.Err(); err != nil {
			yield(SSHKey{}, err)
			return
		}
		if key.Fingerprint != "" {
			yield(key, nil)
		}
	}
}

// scanSSHKey scans a row: the key with one node at most, and the two values for
// [vault.Tx.CountRow].
func scanSSHKey(rows *sql.Rows) (k SSHKey, checkedKey, checkedUse []byte, err error) {
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
		&checkedKey,
		&checkedUse,
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
	return k, checkedKey, checkedUse, nil
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

// selectSigningKey returns the sealed private key, and when it was last used; the zero time:
// never. It returns ErrNotFound where there is no such key.
func selectSigningKey(ctx context.Context, tx *vault.Tx, fingerprint string) (sealed []byte, used time.Time, err error) {
	var at sql.NullInt64
	err = tx.QueryRowContext(ctx, `SELECT private_key, used FROM ssh_keys WHERE fingerprint = ?`, fingerprint).Scan(&sealed, &at)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, time.Time{}, ErrNotFound
	case err != nil:
		return nil, time.Time{}, err
	case at.Valid:
		used = time.UnixMilli(at.Int64)
	}
	return sealed, used, nil
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
	query := sqlSelectSSHKeys("NULL", "NULL", `WHERE ssh_keys.fingerprint = ? ORDER BY beehive_ssh_keys.node_name`)
	for k, err := range selectSSHKeys(ctx, tx, query, fingerprint) {
		return k, err
	}
	return SSHKey{}, ErrNotFound
}

// selectHostSSHKeys returns the keys of the nodes for which a host key is pinned, by
// fingerprint, each with these nodes only.
func selectHostSSHKeys(ctx context.Context, tx *vault.Tx, hostKey string) ([]SSHKey, error) {
	query := sqlSelectSSHKeys("NULL", "NULL", `WHERE beehive_ssh_keys.node_name IN (SELECT node_name FROM host_keys WHERE public_key = ?)
	ORDER BY ssh_keys.fingerprint, beehive_ssh_keys.node_name`)
	var keys []SSHKey
	for k, err := range selectSSHKeys(ctx, tx, query, hostKey) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// selectSSHKeyNodes returns the names of the nodes that use the key.
func selectSSHKeyNodes(ctx context.Context, tx *vault.Tx, fingerprint string) ([]string, error) {
	return selectNames(ctx, tx, `SELECT node_name FROM beehive_ssh_keys WHERE fingerprint = ? ORDER BY node_name`, fingerprint)
}

// selectHostSSHKeyNodes returns the names of the nodes that use the key and have the host
// key pinned.
func selectHostSSHKeyNodes(ctx context.Context, tx *vault.Tx, fingerprint, hostKey string) ([]string, error) {
	return selectNames(ctx, tx, `SELECT node_name
	FROM beehive_ssh_keys
	WHERE fingerprint = ? AND node_name IN (SELECT node_name FROM host_keys WHERE public_key = ?)
	ORDER BY node_name`, fingerprint, hostKey)
}

// selectNames returns the rows of a query of one column of text.
func selectNames(ctx context.Context, tx *vault.Tx, query string, args ...any) ([]string, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
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

// replaceNodeSSHKey makes a node use another key, or with "" no key.
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

// insertSSHKey returns ErrExists, and inserts nothing, where the key exists.
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

// insertNodeSSHKey makes a node use a key. It returns ErrExists, and inserts nothing,
// where the node has a key.
func insertNodeSSHKey(ctx context.Context, tx *vault.Tx, name, fingerprint string) error {
	res, err := tx.ExecContext(ctx, `INSERT INTO beehive_ssh_keys (
		node_name,
		fingerprint
	) VALUES (?, ?)
	ON CONFLICT (node_name) DO NOTHING`, name, fingerprint)
	return expectRow(res, err, ErrExists)
}

// deleteUnusedSSHKey deletes a key that no node and no rotation uses. It reports whether
// it did.
func deleteUnusedSSHKey(ctx context.Context, tx *vault.Tx, fingerprint string) (bool, error) {
	return touchedRow(tx.ExecContext(ctx, `DELETE FROM ssh_keys
	WHERE fingerprint = ?
		AND NOT EXISTS (SELECT 1 FROM beehive_ssh_keys WHERE beehive_ssh_keys.fingerprint = ssh_keys.fingerprint)
		AND NOT EXISTS (SELECT 1 FROM key_rotations WHERE ssh_keys.fingerprint IN (old_fingerprint, new_fingerprint))`, fingerprint))
}
