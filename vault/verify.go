package vault

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
)

// BeginCheck begins a check of all rows of the registry and of the signers that this
// transaction reads. It ends with [Tx.EndCheck].
func (tx *Tx) BeginCheck(ctx context.Context) error {
	_, want, err := tx.auditedDigest(ctx)
	if err != nil {
		return err
	}
	c, err := digest.SelectColumns(ctx, tx)
	if err != nil {
		return err
	}
	tx.check = digest.NewCheck(want.Content, c, tx.sealer.rowHasher())
	return nil
}

// Checked returns an SQL expression for a query that reads all rows of a table. alias is the
// table's alias in the query. The query selects the expression too, and passes its value for
// each row to [Tx.CountRow]. Without a check the expression is NULL.
func (tx *Tx) Checked(table, alias string) string {
	if tx.check == nil {
		return "NULL"
	}
	return tx.check.Table(table, alias)
}

// CountRow counts a row that was read. text is the value of [Tx.Checked].
func (tx *Tx) CountRow(table string, text []byte) {
	if tx.check != nil && text != nil {
		tx.check.Count(table, text)
	}
}

// EndCheck compares the rows that were read with the newest audit row. Each table must have
// been read completely. The error matches [ErrRollback].
func (tx *Tx) EndCheck() error {
	c := tx.check
	tx.check = nil
	return c.End()
}

// VerifyContent reads every row that the digest covers and compares them with the newest audit
// row. The error matches [ErrRollback]. It reads the tables and not their indexes; see
// [Vault.CheckPages] for those.
func (tx *Tx) VerifyContent(ctx context.Context) error {
	_, want, err := tx.auditedDigest(ctx)
	if err != nil {
		return err
	}
	now, err := tx.computeDigest(ctx)
	if err != nil {
		return err
	}
	if err := digest.CompareSlots(now.Slots, want.Slots); err != nil {
		return err
	}
	return digest.CompareContent(now.Content, want.Content)
}

// checkUnlocking compares the slots and what vault_meta says about the unlock methods with the
// digest of the newest audit row. The error matches [ErrRollback].
func (tx *Tx) checkUnlocking(ctx context.Context, m Meta, slots []Slot, want digest.Digest) error {
	version, err := tx.schemaVersion(ctx)
	if err != nil {
		return err
	}
	var seen digest.RowSet
	h := tx.sealer.rowHasher()
	for _, s := range slots {
		seen.Move(1, h.Hash(s.rowText()))
	}
	seen.Move(1, h.Hash(m.unlockingText(version)))
	return digest.CompareSlots(seen, want.Slots)
}

// auditedDigest returns the head of the audit log and the digest in its newest row.
func (tx *Tx) auditedDigest(ctx context.Context) (AuditHead, digest.Digest, error) {
	head, last, err := selectAuditHead(ctx, tx)
	if err != nil {
		return AuditHead{}, digest.Digest{}, fmt.Errorf("read audit head: %w", err)
	}
	d, err := digest.Parse(last)
	if err != nil {
		return AuditHead{}, digest.Digest{}, fmt.Errorf("%w: row %d: %w", ErrAudit, head.Seq, err)
	}
	return head, d, nil
}
