package vault

import (
	"context"
	"errors"
	"fmt"
)

// View runs fn in a read transaction, which sees one snapshot. Other readers and a writer may
// run at the same time. View waits for a running rotation. fn must not call the Vault: a
// rotation waits for fn. The error of fn is returned. If fn meets damage, the error matches
// [ErrDamaged].
func (v *Vault) View(ctx context.Context, fn func(tx *Tx) error) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	return v.view(ctx, fn)
}

// Update runs fn in a write transaction and commits it if fn returns nil. When Update returns
// nil, the change is on the disk. Update waits for writers of all processes, up to
// [Config.Wait], and then returns [ErrLocked]. On any error but [ErrUnknownOutcome] nothing is
// changed. The error of fn is returned.
//
// Callers that wait for one another share a commit, but not its fate: each function runs alone,
// and where one fails, only its own changes are undone. If the commit fails, all of them get its
// error. ctx is not asked any more once fn has returned. fn must not call the Vault, and must not
// wait for another call of Update to return.
func (v *Vault) Update(ctx context.Context, fn func(tx *Tx) error) error {
	return v.admitted(ctx, func() error { return v.updateShared(ctx, fn) })
}

// changing enters the gate and runs fn under the write lock, if the vault may be changed.
func (v *Vault) changing(ctx context.Context, fn func() error) error {
	return v.admitted(ctx, func() error { return v.locked(ctx, fn) })
}

// admitted enters the gate and runs fn, if the vault may be changed.
func (v *Vault) admitted(ctx context.Context, fn func() error) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	if err := v.resettle(ctx); err != nil {
		return err
	}
	defer v.followAnchor(ctx)
	return fn()
}

// resettle returns why nothing may change the vault. If the slots file could not be written
// before, it tries again first. The caller holds the gate and does not hold the write lock.
func (v *Vault) resettle(ctx context.Context) error {
	err := v.changeable()
	if !errors.Is(err, ErrUnsettled) {
		return err
	}
	if err := v.locked(ctx, func() error { return v.settle(ctx) }); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsettled, err)
	}
	return v.changeable()
}
