package vault

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// CheckPages checkpoints the write-ahead log and verifies every page, the constraints and the
// references. Other transactions may write meanwhile. The error matches [ErrDamaged], or
// [ErrLocked] if another connection prevented the checkpoint.
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
			return fmt.Errorf("%w: a reader prevented the checkpoint of the write-ahead log", ErrLocked)
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
