package backup

import (
	"context"
	"database/sql"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func insertDrill(ctx context.Context, tx *vault.Tx, d Drill) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO backup_drills (
			at,
			sequence,
			sums_sha256,
			unlocked_by,
			took,
			failed,
			receipt,
			signature
		) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		d.At.UnixMilli(),
		sql.NullInt64{Int64: d.Sequence, Valid: d.Sequence != 0},
		d.SumsSHA256,
		d.UnlockedBy,
		d.Took.Milliseconds(),
		wire.Nullable(d.Failed),
		string(d.Receipt),
		string(d.Signature),
	)
	return err
}

func selectDrills(ctx context.Context, tx *vault.Tx) ([]Drill, error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT
			at,
			sequence,
			sums_sha256,
			unlocked_by,
			took,
			failed,
			receipt,
			signature
		FROM backup_drills
		ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var drills []Drill
	for rows.Next() {
		var d Drill
		var at, took int64
		var sequence sql.NullInt64
		var failed sql.NullString
		err := rows.Scan(
			&at,
			&sequence,
			&d.SumsSHA256,
			&d.UnlockedBy,
			&took,
			&failed,
			&d.Receipt,
			&d.Signature,
		)
		if err != nil {
			return nil, err
		}
		d.At, d.Sequence, d.Failed = time.UnixMilli(at).UTC(), sequence.Int64, failed.String
		d.Took = time.Duration(took) * time.Millisecond
		drills = append(drills, d)
	}
	return drills, rows.Err()
}
