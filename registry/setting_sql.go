package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// EachSetting yields the settings by name. One that is not valid is [ErrBadRow].
func EachSetting(ctx context.Context, tx *vault.Tx) iter.Seq2[Setting, error] {
	return func(yield func(Setting, error) bool) {
		rows, err := tx.QueryContext(ctx, `
			SELECT
				name,
				value,
				`+tx.Checked("settings", "settings")+`
			FROM settings
			ORDER BY name`)
		if err != nil {
			yield(Setting{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var s Setting
			var checked []byte
			if err = rows.Scan(&s.Name, &s.Value, &checked); err == nil {
				err = s.validateStored()
			}
			if err != nil {
				yield(Setting{}, fmt.Errorf("%w: setting %.64q: %w", ErrBadRow, s.Name, err))
				return
			}
			tx.CountRow("settings", checked)
			if !yield(s, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Setting{}, err)
		}
	}
}

func selectSetting(ctx context.Context, tx *vault.Tx, name string) (value string, set bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = ?`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return value, err == nil, err
}

// InsertSetting inserts a setting of a backup.
func InsertSetting(ctx context.Context, tx *vault.Tx, s Setting) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES (?, ?)`, s.Name, s.Value)
	return err
}

func upsertSetting(ctx context.Context, tx *vault.Tx, s Setting) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO settings (name, value) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, s.Name, s.Value)
	return err
}

func deleteSetting(ctx context.Context, tx *vault.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM settings WHERE name = ?`, name)
	return err
}
