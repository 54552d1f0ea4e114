package vault

import (
	"context"
	"errors"
	"fmt"
)

// OnClose makes Close call fn, when nobody uses the vault any more and before it wipes the
// keys: for what a caller keeps in memory of the vault's secrets. fn must not call the Vault.
func (v *Vault) OnClose(fn func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onClose = append(v.onClose, fn)
}

// Close closes the vault and wipes its keys. It waits until every running View, Update and
// rotation has ended. Calls that begin later, and a second Close, return [ErrClosed]. SQLite
// checkpoints the write-ahead log when the last connection closes.
func (v *Vault) Close() error {
	ctx := context.Background()
	// The whole gate: a transaction that still ran would seal under a wiped key, and would read
	// a database without its locks.
	if err := v.gate.Acquire(ctx, everybody); err != nil {
		return err
	}
	defer v.gate.Release(everybody)

	v.mu.Lock()
	closed := v.closed
	v.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if v.lock != nil { // not a handle that Open refused
		v.finish(ctx)
	}
	v.mu.Lock()
	v.closed = true
	forget := v.onClose
	v.mu.Unlock()
	for _, fn := range forget {
		fn()
	}
	// SQLite's checkpoint at the last close has the database to itself. So closing without the
	// write lock is safe, if another process holds it or if this one wrote nothing.
	held := false
	if v.db.Wrote() {
		held, _ = v.write.TryExclusive()
	}
	errs := []error{v.store.close()}
	if held {
		errs = append(errs, v.write.Unlock())
	}
	if v.claim != nil {
		v.claim.Release()
	}
	if v.lock != nil {
		errs = append(errs, v.lock.Unlock())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close vault: %w", err)
	}
	return nil
}

// finish writes what must be written before the vault is closed: the slots file, if it is
// missing or differs from the table, and the anchor. It waits for the write lock only if the
// slots file must be written, so a handle that only read closes at once. The caller holds the
// whole gate.
func (v *Vault) finish(ctx context.Context) {
	v.stopAnchor()
	if !v.readOnly && v.slotsFileStale(ctx) {
		if err := v.locked(ctx, func() error { return v.settle(ctx) }); err != nil {
			v.cfg.log().Warn("closing the vault: the slots file could not be brought up to date; the next open will do it", "error", err)
		}
	}
	// A handle that only read does not wait for a slow keyring.
	wait := anchorShortWait
	v.mu.Lock()
	if v.anchorProgress.changedHere {
		wait = anchorWait
	}
	v.mu.Unlock()
	v.writeAnchor(ctx, wait)
}
