package backup

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// insertBackup inserts the record of an incomplete backup and returns its
// sequence and the time.
func insertBackup(ctx context.Context, tx *vault.Tx) (sequence int64, created time.Time, err error) {
	created = time.UnixMilli(tx.Now().UnixMilli()).UTC()
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(sequence), 0) + 1 FROM backups`).Scan(&sequence); err != nil {
		return 0, created, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO backups (sequence, created) VALUES (?, ?)`, sequence, created.UnixMilli())
	return sequence, created, err
}

// completeBackup records the backup, of which a copy is in place.
func completeBackup(ctx context.Context, tx *vault.Tx, r Record) error {
	_, err := tx.ExecContext(ctx, `
		UPDATE backups SET
			size = ?,
			sha256 = ?,
			sums_sha256 = ?,
			content_hash = ?,
			digest = ?,
			audit_seq = ?,
			audit_hash = ?,
			nodes = ?,
			ssh_keys = ?,
			signer = ?
		WHERE sequence = ?`,
		r.Size,
		r.SHA256,
		r.SumsSHA256,
		r.ContentHash,
		r.Digest,
		r.AuditSeq,
		r.AuditHash,
		r.Nodes,
		r.SSHKeys,
		r.Signer,
		r.Sequence,
	)
	if err != nil {
		return err
	}
	for _, to := range r.Recipients {
		_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO backup_recipients (sequence, recipient, label) VALUES (?, ?, ?)`, r.Sequence, to.Recipient, to.Label)
		if err != nil {
			return err
		}
	}
	return nil
}

// insertCopy records that a copy is about to be written.
func insertCopy(ctx context.Context, tx *vault.Tx, sequence int64, c Copy) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO backup_copies (
			sequence,
			target,
			place,
			name
		) VALUES (?, ?, (SELECT `+placeOfTarget+` FROM backup_targets WHERE name = ?), ?)`,
		sequence,
		c.Target,
		c.Target,
		c.Name,
	)
	return err
}

// updateCopy records what became of a copy.
func updateCopy(ctx context.Context, tx *vault.Tx, sequence int64, c Copy) error {
	_, err := tx.ExecContext(ctx, `
		UPDATE backup_copies SET
			written = ?,
			version = ?,
			locked_until = ?,
			failed = ?,
			gone = ?
		WHERE sequence = ? AND target = ? AND name = ?`,
		nullTime(c.Written),
		wire.Nullable(c.Version),
		nullTime(c.LockedUntil),
		wire.Nullable(c.Failed),
		nullTime(c.Gone),
		sequence,
		c.Target,
		c.Name,
	)
	return err
}

// updateConfirmed records that a run found nothing to back up since the backup.
func updateConfirmed(ctx context.Context, tx *vault.Tx, sequence int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE backups SET confirmed = ? WHERE sequence = ?`, tx.Now().UnixMilli(), sequence)
	return err
}

// updateVerified records that a copy of the backup was read to its end. It reports whether
// there is such a backup.
func updateVerified(ctx context.Context, tx *vault.Tx, sumsSHA256 string) (bool, error) {
	done, err := tx.ExecContext(ctx, `UPDATE backups SET verified = ? WHERE sums_sha256 = ?`, tx.Now().UnixMilli(), sumsSHA256)
	if err != nil {
		return false, err
	}
	rows, err := done.RowsAffected()
	return rows > 0, err
}

// selectPrevious returns the hash of SHA256SUMS and the content digest of the last
// completed backup before a sequence. They are empty where there is none.
func selectPrevious(ctx context.Context, tx *vault.Tx, sequence int64) (sumsSHA256, digest string, err error) {
	err = tx.QueryRowContext(ctx, `
		SELECT
			sums_sha256,
			digest
		FROM backups
		WHERE sequence < ? AND sha256 IS NOT NULL
		ORDER BY sequence DESC LIMIT 1`, sequence).Scan(
		&sumsSHA256,
		&digest,
	)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return sumsSHA256, digest, err
}

func selectBackups(ctx context.Context, tx *vault.Tx) ([]Record, error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT
			sequence,
			created,
			size,
			sha256,
			sums_sha256,
			content_hash,
			digest,
			audit_seq,
			audit_hash,
			nodes,
			ssh_keys,
			signer,
			confirmed,
			verified,
			(SELECT max(at) FROM backup_drills AS d WHERE d.sequence = b.sequence AND d.failed IS NULL)
		FROM backups AS b
		ORDER BY sequence`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var records []Record
	for rows.Next() {
		r, err := scanBackup(rows)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if err := selectRecipients(ctx, tx, records); err != nil {
		return nil, err
	}
	return records, selectCopies(ctx, tx, records)
}

func scanBackup(rows *sql.Rows) (r Record, err error) {
	var created int64
	var size, auditSeq, nodes, keys, confirmed, verified, proven sql.NullInt64
	var hash, sums, content, digest, auditHash, signer sql.NullString
	err = rows.Scan(
		&r.Sequence,
		&created,
		&size,
		&hash,
		&sums,
		&content,
		&digest,
		&auditSeq,
		&auditHash,
		&nodes,
		&keys,
		&signer,
		&confirmed,
		&verified,
		&proven,
	)
	r.Created, r.Confirmed, r.Verified, r.Proven = time.UnixMilli(created).UTC(), timeOf(confirmed), timeOf(verified), timeOf(proven)
	r.Size, r.AuditSeq, r.Nodes, r.SSHKeys = size.Int64, auditSeq.Int64, nodes.Int64, keys.Int64
	r.SHA256, r.SumsSHA256, r.ContentHash, r.Digest = hash.String, sums.String, content.String, digest.String
	r.AuditHash, r.Signer = auditHash.String, signer.String
	return r, err
}

// selectRecipients adds the recipients to the records, which are in the order of their
// sequences.
func selectRecipients(ctx context.Context, tx *vault.Tx, records []Record) error {
	rows, err := tx.QueryContext(ctx, `
		SELECT
			sequence,
			recipient,
			label
		FROM backup_recipients
		ORDER BY sequence, rowid`)
	if err != nil {
		return err
	}
	defer rows.Close()
	of := bySequence(records)
	for rows.Next() {
		var sequence int64
		var to Recipient
		err := rows.Scan(
			&sequence,
			&to.Recipient,
			&to.Label,
		)
		if err != nil {
			return err
		}
		if r := of[sequence]; r != nil {
			r.Recipients = append(r.Recipients, to)
		}
	}
	return rows.Err()
}

// selectCopies adds the copies to the records.
func selectCopies(ctx context.Context, tx *vault.Tx, records []Record) error {
	rows, err := tx.QueryContext(ctx, `
		SELECT
			sequence,
			target,
			name,
			written,
			version,
			locked_until,
			failed,
			gone
		FROM backup_copies
		ORDER BY sequence, rowid`)
	if err != nil {
		return err
	}
	defer rows.Close()
	of := bySequence(records)
	for rows.Next() {
		var sequence int64
		var c Copy
		var written, locked, gone sql.NullInt64
		var version, failed sql.NullString
		err := rows.Scan(
			&sequence,
			&c.Target,
			&c.Name,
			&written,
			&version,
			&locked,
			&failed,
			&gone,
		)
		if err != nil {
			return err
		}
		c.Written, c.LockedUntil, c.Gone = timeOf(written), timeOf(locked), timeOf(gone)
		c.Version, c.Failed = version.String, failed.String
		if r := of[sequence]; r != nil {
			r.Copies = append(r.Copies, c)
		}
	}
	return rows.Err()
}

func bySequence(records []Record) map[int64]*Record {
	of := make(map[int64]*Record, len(records))
	for i := range records {
		of[records[i].Sequence] = &records[i]
	}
	return of
}

// timeOf returns the time of a column; null is the zero time.
func timeOf(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64).UTC()
}

func nullTime(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: !t.IsZero()}
}
