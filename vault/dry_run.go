package vault

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
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
		t.inPlace, t.replaces, t.unread = &old.id, true, old.key == nil
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

// noSideFiles returns [ErrMissing] for the side files of a database that is not there.
func noSideFiles(p paths) error {
	for _, path := range sqlcipher.SideFiles(p.db) {
		if ok, err := durable.Exists(path); err != nil {
			return err
		} else if ok {
			return fmt.Errorf("%w: there is %q, but no %q", ErrMissing, path, filepath.Base(p.db))
		}
	}
	return nil
}

// checkFresh checks that no file of somebody else is in the place of the new database.
func (t *transition) checkFresh(before slotsFile) error {
	if _, kept := t.paths.leftovers(before); len(kept) > 0 {
		return fmt.Errorf("%w: %q: it is in the place of the new database, and no interrupted run left it: move it to another name", ErrFileExists, kept[0])
	}
	return nil
}

// removeNewDirs returns a function that removes the directories of the path which do not
// exist yet, if they are made and stay empty.
func removeNewDirs(dir string) (remove func(), err error) {
	var missing []string // innermost first
	for {
		if ok, err := durable.Exists(dir); err != nil {
			return nil, fmt.Errorf("examine %q: %w", dir, err)
		} else if ok {
			break
		}
		missing = append(missing, dir)
		dir = filepath.Dir(dir)
	}
	return func() {
		for _, dir := range missing {
			os.Remove(dir)
		}
	}, nil
}
