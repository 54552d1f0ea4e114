package vault

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// tryOut does what a restore does up to the point where it would change something that
// stays: the whole backup is read, verified and built into a database, and every slot is
// wrapped. The database is under a key that nobody keeps. It is removed; after a kill the
// next transition removes it, as a part of ".new". The exclusive lock is held if there is a
// vault in place.
func (t *transition) tryOut(ctx context.Context, old oldVault) error {
	exists, err := durable.Exists(t.paths.db)
	switch {
	case err != nil:
		return err
	case exists != old.exists:
		return errChangedMeanwhile
	case exists:
		t.place, t.replacedKey = old.place(), old.id
		err = t.nameAside()
	default:
		err = noSideFiles(t.paths)
	}
	if err != nil {
		return err
	}
	before, err := readSlotsFile(t.paths.slots)
	if err != nil {
		return err
	}
	if err := t.checkFresh(before); err != nil {
		return err
	}
	part := durable.NewPart(t.paths.fresh)
	defer durable.RemoveIfExists(t.cfg.fs(), part)
	f, err := t.cfg.fs().CreateNew(part)
	if err != nil {
		return fmt.Errorf("create %q: %w", part, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %q: %w", part, err)
	}
	if err := t.buildAt(ctx, part); err != nil {
		return fmt.Errorf("build the new database: %w", err)
	}
	return nil
}
