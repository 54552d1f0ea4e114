package backup

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// insertBackup begins a record and returns its sequence.
func insertBackup(ctx context.Context, tx *vault.Tx) (int64, error) {
	var sequence int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(sequence), 0) + 1 FROM backups`).Scan(&sequence); err != nil {
		return 0, err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO backups (sequence, created) VALUES (?, ?)`, sequence, tx.Now().UnixMilli())
	return sequence, err
}

// completeBackup notes that the file is in place.
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

// selectPreviousSums returns the hash of the last completed backup's sums
// before a sequence, or nil.
func selectPreviousSums(ctx context.Context, tx *vault.Tx, sequence int64) (*string, error) {
	var sums string
	err := tx.QueryRowContext(ctx, `
		SELECT sums_sha256
		FROM backups
		WHERE sequence < ? AND path IS NOT NULL
		ORDER BY sequence DESC LIMIT 1`, sequence).Scan(&sums)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return &sums, nil
}

// selectLastContent returns the content hash of the last completed backup before
// a sequence, or "".
func selectLastContent(ctx context.Context, tx *vault.Tx, sequence int64) (string, error) {
	var hash string
	err := tx.QueryRowContext(ctx, `
		SELECT content_hash
		FROM backups
		WHERE sequence < ? AND path IS NOT NULL
		ORDER BY sequence DESC LIMIT 1`, sequence).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return hash, err
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
			content_hash,
			restored
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
		var size, restored sql.NullInt64
		err := rows.Scan(
			&r.Sequence,
			&created,
			&path,
			&size,
			&hash,
			&sums,
			&content,
			&restored,
		)
		if err != nil {
			return nil, err
		}
		r.Created = time.UnixMilli(created).UTC()
		r.Path, r.Size = path.String, size.Int64
		r.SHA256, r.SumsSHA256, r.ContentHash = hash.String, sums.String, content.String
		if restored.Valid {
			r.Restored = time.UnixMilli(restored.Int64).UTC()
		}
		records = append(records, r)
	}
	return records, rows.Err()
}
