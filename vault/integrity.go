package vault

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// CheckPages copies the write-ahead log into the database and verifies every
// page, the constraints and the references. Others write meanwhile. The error
// matches [ErrDamaged], or [ErrLocked] when another connection kept the log from
// being emptied.
func (v *Vault) CheckPages(ctx context.Context) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	if v.readOnly {
		return v.db.CheckPages(ctx)
	}
	var snapshot *sqlcipher.Snapshot
	err := v.locked(ctx, func() error {
		emptied, err := v.db.Checkpoint(ctx)
		if err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		if !emptied {
			return fmt.Errorf("%w: a reader kept the write-ahead log from being folded in", ErrLocked)
		}
		snapshot, err = v.db.Snapshot(ctx)
		return err
	})
	if err != nil {
		return err
	}
	defer snapshot.Close()
	return snapshot.CheckPages(ctx)
}
