package vault

import (
	"context"
	"time"
)

// AnchorState says how far the keyring's anchor is behind the vault.
type AnchorState struct {
	// BehindSince is the time of the oldest change that the anchor does not cover. Zero: it
	// covers all changes.
	BehindSince time.Time
	// Retry is when the anchor is written again after the keyring refused it. Zero: soon.
	Retry time.Time
}

// Anchor compares the keyring's anchor with the vault. It returns [keyring.ErrNotFound] if
// there is none, [ErrRollback], or an error of package keyring. If the keyring is not an unlock
// method, it returns the zero state.
func (v *Vault) Anchor(ctx context.Context) (AnchorState, error) {
	var state AnchorState
	err := v.View(ctx, func(tx *Tx) error {
		m, err := tx.Meta(ctx)
		if err != nil || !m.Keyring || v.cfg.Keyring == nil || v.readOnly {
			return err
		}
		a, err := readAnchor(ctx, v.cfg.Keyring, m.VaultID)
		if err != nil {
			return err
		}
		ahead, err := a.check(ctx, tx, m)
		if err != nil || !ahead {
			return err
		}
		row, err := selectAuditRow(ctx, tx, a.head.Seq+1)
		state.BehindSince = row.At
		return err
	})
	if retry := v.anchorRetry(); retry.After(v.cfg.now()) {
		state.Retry = retry
	}
	return state, err
}
