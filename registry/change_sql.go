package registry

import (
	"context"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// selectChangeBounds returns the oldest and the newest row of node_changes, 0 where it is
// empty.
func selectChangeBounds(ctx context.Context, tx *vault.Tx) (first, last int64, err error) {
	// Two queries: of both in one, SQLite would read all rows.
	err = tx.QueryRowContext(ctx, `
		SELECT
			(SELECT coalesce(min(seq), 0) FROM node_changes),
			(SELECT coalesce(max(seq), 0) FROM node_changes)`).Scan(
		&first,
		&last,
	)
	return first, last, err
}

// selectChangedNames returns the nodes that changed behind a row of node_changes.
func selectChangedNames(ctx context.Context, tx *vault.Tx, seq int64) (names []string, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT DISTINCT node_name FROM node_changes WHERE seq > ?`, seq)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}
