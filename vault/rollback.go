package vault

import (
	"context"
	"errors"
)

// enterAndCompareAnchor enters the gate and calls compareAnchor. It accepts a rollback if the
// operator does.
func (v *Vault) enterAndCompareAnchor(ctx context.Context) error {
	err := func() error {
		if err := v.enter(ctx); err != nil {
			return err
		}
		defer v.leave()
		r, err := v.readAudited(ctx)
		if err != nil {
			return err
		}
		return v.compareAnchor(ctx, r)
	}()
	if errors.Is(err, ErrRollback) {
		return v.acceptRollback(ctx)
	}
	return err
}

// acceptRollback returns the rollback that compareAnchor found. If the operator accepts it, it
// is written to the audit log instead.
func (v *Vault) acceptRollback(ctx context.Context) error {
	v.mu.Lock()
	found := v.anchorProgress.rollback
	v.mu.Unlock()
	if found == nil || !v.cfg.AcceptRollback {
		return found
	}
	if err := v.Update(ctx, func(tx *Tx) error { return tx.auditRollback(ctx, found) }); err != nil {
		return err
	}
	v.acceptAnchor()
	v.followAnchor(ctx)
	return nil
}
