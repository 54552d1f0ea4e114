package vault

import (
	"context"
	"fmt"
	"iter"
	"math"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// Audit appends a row to the audit log, in the transaction that makes the change and after the
// change. If it fails, the transaction must fail.
func (tx *Tx) Audit(ctx context.Context, e Event) error {
	head, last, err := selectAuditHead(ctx, tx)
	if err != nil {
		return fmt.Errorf("read audit head: %w", err)
	}
	now, err := tx.digestBehind(ctx, last)
	if err != nil {
		return fmt.Errorf("digest rows: %w", err)
	}
	actor := tx.actor(ctx)
	r := AuditRow{
		Seq:      head.Seq + 1,
		At:       tx.now,
		Actor:    actor.Name,
		Via:      actor.Via,
		Action:   auditText(e.Action.name(), maxAction),
		Subject:  auditText(e.Subject, maxSubject),
		Detail:   auditText(e.Detail, maxDetail),
		Digest:   now.String(),
		PrevHash: head.Hash,
	}
	r.Hash = r.sum()
	if err := insertAuditRows(ctx, tx, appendAuditArgs(nil, r)); err != nil {
		return fmt.Errorf("write audit row: %w", err)
	}
	tx.audited = max(tx.audited, e.Action.urgency())
	return nil
}

// digestBehind returns the digest of the present rows: that of the last audit row, plus what
// has changed since.
func (tx *Tx) digestBehind(ctx context.Context, last string) (digest.Digest, error) {
	if tx.moved == nil {
		return tx.computeDigest(ctx)
	}
	d, err := digest.Parse(last)
	if err != nil {
		return digest.Digest{}, fmt.Errorf("%w: %w", ErrAudit, err)
	}
	d = d.Plus(*tx.moved)
	*tx.moved = digest.Digest{}
	return d, nil
}

// AuditHead returns the head of the audit log.
func (tx *Tx) AuditHead(ctx context.Context) (AuditHead, error) {
	head, _, err := selectAuditHead(ctx, tx)
	if err != nil {
		return AuditHead{}, fmt.Errorf("read audit head: %w", err)
	}
	return head, nil
}

// AuditRows yields the audit log, oldest row first, starting with row `from`. It verifies
// nothing: see [Tx.VerifyAudit].
func (tx *Tx) AuditRows(ctx context.Context, from int64) iter.Seq2[AuditRow, error] {
	return selectAuditRows(ctx, tx, from)
}

// VerifyAudit verifies the whole audit log and returns its head. The error matches [ErrAudit]
// and names the first row that was changed.
func (tx *Tx) VerifyAudit(ctx context.Context) (AuditHead, error) {
	var head AuditHead
	for r, err := range tx.AuditRows(ctx, math.MinInt64) {
		if err != nil {
			return AuditHead{}, fmt.Errorf("read audit log: %w", err)
		}
		if head, err = head.Follow(r); err != nil {
			return AuditHead{}, err
		}
	}
	return head, nil
}

// AuditPart is a part of another vault's log, ready to be appended.
type AuditPart struct {
	before, after AuditHead
	args          []any // of the rows
}

// NewAuditPart verifies that rows follow one another; otherwise the error matches [ErrAudit].
// The part keeps nothing of the slice.
func NewAuditPart(rows []AuditRow) (AuditPart, error) {
	if len(rows) == 0 {
		return AuditPart{}, nil
	}
	before := AuditHead{Seq: rows[0].Seq - 1, Hash: rows[0].PrevHash}
	p := AuditPart{before: before, after: before, args: make([]any, 0, len(rows)*len(auditColumns))}
	for _, r := range rows {
		var err error
		if p.after, err = p.after.Follow(r); err != nil {
			return AuditPart{}, err
		}
		p.args = appendAuditArgs(p.args, r)
	}
	return p, nil
}

// AppendAuditPart copies a part of another vault's log, for a restore. It verifies that the part
// continues the log; otherwise the error matches [ErrAudit].
func (tx *Tx) AppendAuditPart(ctx context.Context, p AuditPart) error {
	if len(p.args) == 0 {
		return nil
	}
	head, err := tx.AuditHead(ctx)
	if err != nil {
		return err
	}
	if head != p.before {
		return fmt.Errorf("%w: row %d does not continue row %d", ErrAudit, p.before.Seq+1, head.Seq)
	}
	return insertAuditRows(ctx, tx, p.args)
}

// auditRollback takes the rows as they are for the right ones. Its audit row lists them and
// holds their digest.
func (tx *Tx) auditRollback(ctx context.Context, found error) error {
	slots, err := tx.Slots(ctx)
	if err != nil {
		return err
	}
	detail := []string{found.Error()}
	for _, s := range slots {
		detail = append(detail, "slot "+s.ID+" "+s.text())
	}
	for _, t := range digest.ContentTables() {
		var n int64
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+sqlcipher.QuoteName(t.Name)).Scan(&n); err != nil {
			return err
		}
		detail = append(detail, fmt.Sprintf("%d rows of %s", n, t.Name))
	}
	for _, line := range detail[1:] {
		tx.cfg.log().Warn("accepted as it is", "what", line)
	}
	tx.moved = nil
	return tx.Audit(ctx, Event{Action: ActionAcceptRollback, Detail: strings.Join(detail, "; ")})
}
