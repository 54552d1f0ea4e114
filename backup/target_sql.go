package backup

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func targetExists(ctx context.Context, tx *vault.Tx, name string) (there bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM backup_targets WHERE name = ?)`, name).Scan(&there)
	return there, err
}

// placeOfTarget is where a target is, in SQL.
const placeOfTarget = `url || coalesce(' at ' || endpoint, '')`

// otherPlace returns the place of copies that were written under a target's name when it stood
// for another place. It is empty where there are none.
func otherPlace(ctx context.Context, tx *vault.Tx, name string) (place string, err error) {
	err = tx.QueryRowContext(ctx, `
		SELECT place
		FROM backup_copies
		WHERE
			target = ?
			AND written IS NOT NULL
			AND gone IS NULL
			AND place <> (SELECT `+placeOfTarget+` FROM backup_targets WHERE name = ?)
		ORDER BY sequence DESC LIMIT 1`, name, name).Scan(&place)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return place, err
}

// insertTarget inserts a target, and seals its secret.
func insertTarget(ctx context.Context, tx *vault.Tx, t Target) error {
	var sealed []byte
	var err error
	if len(t.Secret) > 0 {
		if sealed, err = tx.Seal(ctx, vault.SealedTarget, t.Name, t.Secret); err != nil {
			return err
		}
	}
	created := t.Created
	if created.IsZero() {
		created = tx.Now()
	}
	_, err = tx.ExecContext(ctx, `
		INSERT INTO backup_targets (
			name,
			url,
			endpoint,
			region,
			profile,
			access_key,
			secret,
			retain,
			conditional,
			checksum,
			created
		) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.Name,
		t.URL,
		wire.Nullable(t.Endpoint),
		wire.Nullable(t.Region),
		wire.Nullable(t.Profile),
		wire.Nullable(t.AccessKey),
		sealed,
		sql.NullInt64{Int64: int64(t.Retain / time.Second), Valid: t.Retain > 0},
		!t.NoConditional,
		!t.NoChecksum,
		created.UnixMilli(),
	)
	return err
}

func deleteTarget(ctx context.Context, tx *vault.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM backup_targets WHERE name = ?`, name)
	return err
}

// EachTarget returns the targets by name, with their secrets. The caller wipes these.
func EachTarget(ctx context.Context, tx *vault.Tx) iter.Seq2[Target, error] {
	return func(yield func(Target, error) bool) {
		rows, err := tx.QueryContext(ctx, `
			SELECT
				name,
				url,
				endpoint,
				region,
				profile,
				access_key,
				secret,
				retain,
				conditional,
				checksum,
				created,
				`+tx.Checked("backup_targets", "backup_targets")+`
			FROM backup_targets
			ORDER BY name`)
		if err != nil {
			yield(Target{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			t, err := scanTarget(ctx, tx, rows)
			if err != nil {
				yield(Target{}, err)
				return
			}
			if !yield(t, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Target{}, err)
		}
	}
}

func scanTarget(ctx context.Context, tx *vault.Tx, rows *sql.Rows) (t Target, err error) {
	var endpoint, region, profile, accessKey sql.NullString
	var sealed []byte
	var retain sql.NullInt64
	var conditional, checksum bool
	var created int64
	var checked []byte
	err = rows.Scan(
		&t.Name,
		&t.URL,
		&endpoint,
		&region,
		&profile,
		&accessKey,
		&sealed,
		&retain,
		&conditional,
		&checksum,
		&created,
		&checked,
	)
	if err != nil {
		return Target{}, err
	}
	tx.CountRow("backup_targets", checked)
	t.Endpoint, t.Region, t.Profile, t.AccessKey = endpoint.String, region.String, profile.String, accessKey.String
	t.Retain = time.Duration(retain.Int64) * time.Second
	t.NoConditional, t.NoChecksum = !conditional, !checksum
	t.Created = time.UnixMilli(created).UTC()
	if sealed != nil {
		t.Secret, err = tx.Unseal(ctx, vault.SealedTarget, t.Name, sealed)
	}
	return t, err
}
