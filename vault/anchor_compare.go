package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// compareAnchor compares the database with the keyring's anchor, once per handle. It returns
// [ErrRollback] if the database is older. Otherwise the handle may write the anchor from then
// on.
func (v *Vault) compareAnchor(ctx context.Context, r reading) error {
	m := r.meta
	v.mu.Lock()
	known := v.anchorProgress
	v.mu.Unlock()
	if known.compared {
		return known.rollback
	}
	found := anchorProgress{compared: true}
	a, err := v.readAnchor(ctx, m.VaultID)
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		if m.Keyring { // else the keyring becomes an unlock method only now
			v.cfg.log().Warn("the keyring had no anchor for this vault, so an older copy of the database would not have been noticed; an anchor is written now")
		}
		found.missing, found.behind, found.urgent = true, true, true
	case err == nil && a.aside:
		found.rollback = fmt.Errorf("%w: a restore replaced this vault, and then its files were put back", ErrRollback)
	case err == nil && a.head == r.head && a.generation == m.Generation:
		// The database is as the anchor saw it.
	case err == nil:
		err = v.view(ctx, func(tx *Tx) (err error) {
			found.behind, err = a.check(ctx, tx, m)
			return err
		})
		fallthrough
	default:
		if errors.Is(err, ErrRollback) {
			found.rollback = err
		} else if err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	found.warned = known.warned
	v.anchorProgress = found
	return found.rollback
}

// readAnchor returns the anchor that the keyring returned together with the key, once. After
// that it asks the keyring.
func (v *Vault) readAnchor(ctx context.Context, vaultID string) (anchor, error) {
	v.mu.Lock()
	item := v.anchorItem
	v.anchorItem = nil
	v.mu.Unlock()
	if item != nil && item.vaultID == vaultID {
		return item.parse()
	}
	return readAnchor(ctx, v.cfg.Keyring, vaultID)
}

// anchor returns the anchor of the vault as the transaction sees it.
func (tx *Tx) anchor(ctx context.Context) (Meta, anchor, error) {
	m, err := tx.Meta(ctx)
	if err != nil {
		return Meta{}, anchor{}, err
	}
	head, err := tx.AuditHead(ctx)
	return m, anchor{vaultID: m.VaultID, generation: m.Generation, head: head}, err
}

// check returns [ErrRollback] if the database does not contain the state that the anchor saw.
// ahead reports whether the database has changed since that state.
func (a anchor) check(ctx context.Context, tx *Tx, m Meta) (ahead bool, err error) {
	end, err := selectAuditRowEnd(ctx, tx)
	if err != nil {
		return false, err
	}
	if a.generation > m.Generation {
		return false, fmt.Errorf("%w: the keyring has seen generation %d of its key, the database has generation %d, made %s", ErrRollback, a.generation, m.Generation, wire.FormatTime(m.KeyCreated))
	}
	if a.head.Seq > end.Seq {
		return false, fmt.Errorf("%w: the keyring has seen row %d of its audit log, the database ends with row %d of %s", ErrRollback, a.head.Seq, end.Seq, wire.FormatTime(end.At))
	}
	row, err := selectAuditRow(ctx, tx, a.head.Seq)
	if err != nil {
		return false, err
	}
	if row.Hash != a.head.Hash {
		return false, fmt.Errorf("%w: row %d of its audit log, of %s, is not the one that the keyring has seen; the log ends with row %d of %s", ErrRollback, row.Seq, wire.FormatTime(row.At), end.Seq, wire.FormatTime(end.At))
	}
	return end.Seq > a.head.Seq || m.Generation > a.generation, nil
}

// acceptAnchor makes the anchor follow the database after the operator accepted a rollback.
func (v *Vault) acceptAnchor() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.anchorProgress.accept()
}
