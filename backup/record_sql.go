package backup

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// insertBackup inserts the record of an incomplete backup and returns its
// sequence.
func insertBackup(ctx context.Context, tx *vault.Tx) (int64, error) {
	var sequence int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(sequence), 0) + 1 FROM backups`).Scan(&sequence); err != nil {
		return 0, err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO backups (sequence, created) VALUES (?, ?)`, sequence, tx.Now().UnixMilli())
	return sequence, err
}

// completeBackup records the file, which is in place.
func completeBackup(ctx context.Context, tx *vault.Tx, r Record) error {
	_, err := tx.ExecContext(ctx, `
		UPDATE backups SET
			path = ?,
			size = ?,
			sha256 = ?,
			sums_sha256 = ?,
			content_hash = ?
		WHERE sequence = ?`,
		r.Path,
		r.Size,
		r.SHA256,
		r.SumsSHA256,
		r.ContentHash,
		r.Sequence,
	)
	return err
}

// selectPrevious returns the two hashes of the last completed backup before a
// sequence. They are empty where there is none.
func selectPrevious(ctx context.Context, tx *vault.Tx, sequence int64) (sumsSHA256, contentHash string, err error) {
	err = tx.QueryRowContext(ctx, `
		SELECT
			sums_sha256,
			content_hash
		FROM backups
		WHERE sequence < ? AND path IS NOT NULL
		ORDER BY sequence DESC LIMIT 1`, sequence).Scan(
		&sumsSHA256,
		&contentHash,
	)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return sumsSHA256, contentHash, err
}

func selectBackups(ctx context.Context, tx *vault.Tx) ([]Record, error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT
			sequence,
			created,
			path,
			size,
			sha256,
			sums_sha256,
			content_hash
		FROM backups
		ORDER BY sequence`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var records []Record
	for rows.Next() {
		var r Record
		var created int64
		var path, hash, sums, content sql.NullString
		var size sql.NullInt64
		err := rows.Scan(
			&r.Sequence,
			&created,
			&path,
			&size,
			&hash,
			&sums,
			&content,
		)
		if err != nil {
			return nil, err
		}
		r.Created = time.UnixMilli(created).UTC()
		r.Path, r.Size = path.String, size.Int64
		r.SHA256, r.SumsSHA256, r.ContentHash = hash.String, sums.String, content.String
		records = append(records, r)
	}
	return records, rows.Err()
}
