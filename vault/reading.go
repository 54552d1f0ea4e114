package vault

import (
	"context"
	"errors"
	"fmt"
)

// reading is the slots file, and then what an open reads from the database, in one snapshot. A
// change of the slots is written to the table first: so a file that was read before the table
// is never ahead of it.
type reading struct {
	file    slotsFile
	version int64
	meta    Meta
	slots   []Slot
	head    AuditHead
	signers []Signer // nil if the keyring proves the key
	// replayed is an [ErrRollback] if the slots are not those of the newest audit row, else
	// nil. The caller may accept it.
	replayed error
}

// read reads everything but the signers. It compares the slots with the newest audit row. If
// the operator accepts a rollback, it compares all rows.
func (tx *Tx) read(ctx context.Context) (r reading, err error) {
	if r.version, err = tx.schemaVersion(ctx); err != nil {
		return reading{}, err
	}
	r.meta, r.slots, r.head, r.replayed = tx.checkedSlots(ctx)
	if r.replayed == nil && tx.cfg.AcceptRollback {
		r.replayed = tx.VerifyContent(ctx)
	}
	if r.replayed != nil && !errors.Is(r.replayed, ErrRollback) {
		return reading{}, r.replayed
	}
	return r, nil
}

// Meta returns what the vault stores about itself.
func (tx *Tx) Meta(ctx context.Context) (Meta, error) {
	m, err := selectMeta(ctx, tx)
	if err != nil {
		return Meta{}, fmt.Errorf("read vault_meta: %w", err)
	}
	return m, nil
}

// Slots returns the vault's slots: recovery slots first, then the others, each by age.
func (tx *Tx) Slots(ctx context.Context) ([]Slot, error) {
	slots, err := selectSlots(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("read slots: %w", err)
	}
	return slots, nil
}

// CheckedSlots returns the results of Meta and Slots. If they are not those of the newest audit
// row, the error matches [ErrRollback].
func (tx *Tx) CheckedSlots(ctx context.Context) (Meta, []Slot, error) {
	m, slots, _, err := tx.checkedSlots(ctx)
	return m, slots, err
}

// checkedSlots is CheckedSlots. It also returns the head of the audit log.
func (tx *Tx) checkedSlots(ctx context.Context) (Meta, []Slot, AuditHead, error) {
	m, err := tx.Meta(ctx)
	if err != nil {
		return Meta{}, nil, AuditHead{}, err
	}
	slots, err := tx.Slots(ctx)
	if err != nil {
		return Meta{}, nil, AuditHead{}, err
	}
	head, want, err := tx.auditedDigest(ctx)
	if err == nil {
		err = tx.checkUnlocking(ctx, m, slots, want)
	}
	return m, slots, head, err
}

// read reads the database alone.
func (v *Vault) read(ctx context.Context) (r reading, err error) {
	err = v.view(ctx, func(tx *Tx) (err error) {
		r, err = tx.read(ctx)
		return err
	})
	return r, err
}

// readAll reads the slots file and then the database.
func (v *Vault) readAll(ctx context.Context) (reading, error) {
	file, err := readSlotsFile(v.paths.slots)
	if err != nil {
		return reading{}, err
	}
	r, err := v.read(ctx)
	r.file = file
	return r, err
}

// readAudited is read that returns [ErrRollback] if the slots are not those of the newest audit
// row.
func (v *Vault) readAudited(ctx context.Context) (reading, error) {
	r, err := v.read(ctx)
	if err == nil {
		err = r.replayed
	}
	return r, err
}

func (v *Vault) metaAndSlots(ctx context.Context) (Meta, []Slot, error) {
	r, err := v.readAudited(ctx)
	return r.meta, r.slots, err
}
