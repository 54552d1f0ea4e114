package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"
)

var auditColumns = []string{
	"seq",
	"at",
	"actor",
	"via",
	"action",
	"subject",
	"detail",
	"digest",
	"prev_hash",
	"hash",
}

// appendAuditArgs appends the values of auditColumns.
func appendAuditArgs(args []any, r AuditRow) []any {
	return append(args,
		r.Seq,
		r.At.UnixMilli(),
		r.Actor,
		r.Via,
		r.Action,
		anyText(r.Subject),
		anyText(r.Detail),
		r.Digest,
		r.PrevHash[:],
		r.Hash[:],
	)
}

func insertAuditRows(ctx context.Context, tx *Tx, args []any) error {
	_, err := tx.InsertRows(ctx, "audit_log", auditColumns, "", args)
	return err
}

// selectAuditHead returns the head of the log and the digest of the newest row.
func selectAuditHead(ctx context.Context, tx *Tx) (head AuditHead, digest string, err error) {
	var hash []byte
	err = tx.QueryRowContext(ctx, `SELECT seq, digest, hash FROM audit_log ORDER BY seq DESC LIMIT 1`).Scan(&head.Seq, &digest, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return AuditHead{}, "", nil
	} else if err != nil {
		return AuditHead{}, "", err
	}
	if copy(head.Hash[:], hash) != len(head.Hash) || len(hash) != len(head.Hash) {
		return AuditHead{}, "", fmt.Errorf("%w: row %d has no hash", ErrAudit, head.Seq)
	}
	return head, digest, nil
}

// selectAuditRow returns the row with the number seq. If it is missing, the error matches
// [ErrAudit].
func selectAuditRow(ctx context.Context, tx *Tx, seq int64) (AuditRow, error) {
	for r, err := range selectAuditRows(ctx, tx, seq) {
		if err == nil && r.Seq != seq {
			break
		}
		return r, err
	}
	return AuditRow{}, fmt.Errorf("%w: row %d is missing", ErrAudit, seq)
}

// selectAuditRowEnd returns the newest row. It is zero for an empty log.
func selectAuditRowEnd(ctx context.Context, tx *Tx) (AuditRow, error) {
	head, _, err := selectAuditHead(ctx, tx)
	if err != nil || head.Seq == 0 {
		return AuditRow{}, err
	}
	return selectAuditRow(ctx, tx, head.Seq)
}

func selectAuditRows(ctx context.Context, tx *Tx, from int64) iter.Seq2[AuditRow, error] {
	return func(yield func(AuditRow, error) bool) {
		rows, err := tx.QueryContext(ctx, `
			SELECT
				seq,
				at,
				actor,
				via,
				action,
				subject,
				detail,
				digest,
				prev_hash,
				hash
			FROM audit_log
			WHERE seq >= ?
			ORDER BY seq`, from)
		if err != nil {
			yield(AuditRow{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			r, err := auditRowOf(rows)
			if !yield(r, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(AuditRow{}, err)
		}
	}
}

func auditRowOf(rows *sql.Rows) (AuditRow, error) {
	var r AuditRow
	var at int64
	var subject, detail sql.NullString
	var prev, hash []byte
	err := rows.Scan(
		&r.Seq,
		&at,
		&r.Actor,
		&r.Via,
		&r.Action,
		&subject,
		&detail,
		&r.Digest,
		&prev,
		&hash,
	)
	if err != nil {
		return AuditRow{}, err
	}
	if len(prev) != len(r.PrevHash) || len(hash) != len(r.Hash) {
		return AuditRow{}, fmt.Errorf("%w: row %d has no hash", ErrAudit, r.Seq)
	}
	if subject.Valid && subject.String == "" || detail.Valid && detail.String == "" {
		return AuditRow{}, fmt.Errorf("%w: row %d has an empty text, which is never written", ErrAudit, r.Seq)
	}
	r.At = time.UnixMilli(at).UTC()
	r.Subject, r.Detail = subject.String, detail.String
	copy(r.PrevHash[:], prev)
	copy(r.Hash[:], hash)
	return r, nil
}
