package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"

	"github.com/rbee-keeper/rbee-vault/vault"
)

const keyRotationColumns = `
		node_name,
		old_fingerprint,
		new_fingerprint,
		step`

// selectKeyRotations yields the rotations by node. It does not validate them.
func selectKeyRotations(ctx context.Context, tx *vault.Tx) iter.Seq2[KeyRotation, error] {
	return func(yield func(KeyRotation, error) bool) {
		rows, err := tx.QueryContext(ctx, `SELECT`+keyRotationColumns+`,
		`+tx.Checked("key_rotations", "key_rotations")+`
	FROM key_rotations
	ORDER BY node_name`)
		if err != nil {
			yield(KeyRotation{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var k KeyRotation
			var checked []byte
			err := rows.Scan(
				&k.Node,
				&k.Old,
				&k.New,
				&k.Step,
				&checked,
			)
			if err != nil {
				yield(KeyRotation{}, fmt.Errorf("%w: key rotation of node %.80q: %w", ErrBadRow, k.Node, err))
				return
			}
			tx.CountRow("key_rotations", checked)
			if !yield(k, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(KeyRotation{}, err)
		}
	}
}

// selectKeyRotation returns ErrNotFound where the node has no rotation.
func selectKeyRotation(ctx context.Context, tx *vault.Tx, node string) (KeyRotation, error) {
	var k KeyRotation
	err := tx.QueryRowContext(ctx, `SELECT`+keyRotationColumns+`
	FROM key_rotations
	WHERE node_name = ?`, node).Scan(
		&k.Node,
		&k.Old,
		&k.New,
		&k.Step,
	)
	if errors.Is(err, sql.ErrNoRows) {
		return KeyRotation{}, ErrNotFound
	}
	return k, err
}

// selectRotationNodes returns the names of the nodes whose rotation is from or to the key.
func selectRotationNodes(ctx context.Context, tx *vault.Tx, fingerprint string) ([]string, error) {
	rows, err := tx.QueryContext(ctx, `SELECT node_name FROM key_rotations WHERE ? IN (old_fingerprint, new_fingerprint) ORDER BY node_name`, fingerprint)
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

// insertKeyRotation returns ErrExists, and inserts nothing, where the node has a rotation.
func insertKeyRotation(ctx context.Context, tx *vault.Tx, k KeyRotation) error {
	res, err := tx.ExecContext(ctx, `INSERT INTO key_rotations (
		node_name,
		old_fingerprint,
		new_fingerprint,
		step
	) VALUES (?, ?, ?, ?)
	ON CONFLICT (node_name) DO NOTHING`,
		k.Node,
		k.Old,
		k.New,
		k.Step,
	)
	return expectRow(res, err, ErrExists)
}

// updateRotationStep returns ErrNotFound where the node has no rotation.
func updateRotationStep(ctx context.Context, tx *vault.Tx, node string, step RotationStep) error {
	res, err := tx.ExecContext(ctx, `UPDATE key_rotations SET step = ? WHERE node_name = ?`, step, node)
	return expectRow(res, err, ErrNotFound)
}

// deleteKeyRotation returns ErrNotFound where the node has no rotation.
func deleteKeyRotation(ctx context.Context, tx *vault.Tx, node string) error {
	res, err := tx.ExecContext(ctx, `DELETE FROM key_rotations WHERE node_name = ?`, node)
	return expectRow(res, err, ErrNotFound)
}
