package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// run does steps 2 to 8. On an error before the commit, the vault in place is unchanged, and
// what was made is removed as far as possible.
func (t *transition) run(ctx context.Context) error {
	defer t.key.Wipe()
	before, err := readSlotsFile(t.paths.slots)
	if err != nil {
		return err
	}
	if err := t.steps(ctx, before); err != nil {
		// A call can fail after it took effect, so the file in place decides what happened. If
		// even that cannot be read, nothing is touched.
		id, e := readKeyID(t.paths.db)
		switch {
		case e == nil && id == t.key.ID():
			t.cfg.log().Warn("the vault is in place, but a later step failed", "error", err)
		case e == nil, errors.Is(e, fs.ErrNotExist), t.place == placeUnread && (errors.Is(e, ErrDamaged) || errors.Is(e, ErrPlaintext)):
			t.abandon(ctx, before)
			if t.stripped {
				err = fmt.Errorf("%w (the complete vault is in %q)", err, t.aside)
			}
			return err
		default:
			return errors.Join(err, e)
		}
	}
	// From here on the new vault is in place. What settling does not finish, the next open
	// does.
	if t.unsettled = t.settle(context.WithoutCancel(ctx)); t.unsettled != nil {
		t.cfg.log().Warn("the vault is in place; the next open settles the rest", "error", t.unsettled)
	}
	return nil
}

// steps does steps 2 to 7. before is the slots file as it was.
func (t *transition) steps(ctx context.Context, before slotsFile) error {
	if err := t.build(ctx, before); err != nil {
		return fmt.Errorf("build the new database: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.place.replaced() {
		if err := t.setAside(); err != nil {
			return fmt.Errorf("set the vault in place aside: %w", err)
		}
	}
	if t.place == placeLost {
		aside, err := keepForeign(t.cfg, t.paths, before.data)
		if err != nil {
			return fmt.Errorf("copy slots file aside: %w", err)
		}
		t.cfg.log().Warn("the slots file names a database that does not exist: it is copied aside", "copy", aside)
	}
	entries := append(t.entriesInPlace(before), newEntry(t.meta, t.slots, t.key.Check(), statePending))
	if err := checkSlotsFile(entries); err != nil {
		return err
	}
	if err := durable.Replace(t.cfg.fs(), t.paths.slots, renderSlotsFile(entries)); err != nil {
		return fmt.Errorf("write slots file: %w", err)
	}
	if t.handOver != nil {
		if err := t.handOver(ctx); err != nil {
			return err
		}
	}
	if t.meta.Keyring {
		line := t.key.Line()
		defer wipe(line)
		if err := t.cfg.Keyring.Set(ctx, t.key.ID().String(), string(line)); err != nil {
			return fmt.Errorf("put the key into the keyring: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.commit()
}

// entriesInPlace returns the entries of the slots file that stay until the commit, before the
// new one. That of a vault that is replaced says so.
func (t *transition) entriesInPlace(before slotsFile) []entry {
	if !t.place.taken() {
		return nil
	}
	entries := slices.Clone(before.entries)
	for i, e := range entries {
		if t.place.replaced() && e.KeyID == t.replacedKey {
			entries[i].State = stateReplaced
			if e.Keyring {
				t.replacedVault = e.VaultID
			}
		}
	}
	return entries
}

// commit is step 7. After it the new database is the vault.
func (t *transition) commit() error {
	fsys, p := t.cfg.fs(), t.paths
	if t.place == placeUnread {
		t.stripped = true
		for _, path := range sqlcipher.SideFiles(p.db) {
			if err := durable.RemoveIfExists(fsys, path); err != nil {
				return err
			}
		}
	}
	if err := sqlcipher.CheckNoSideFiles(p.db); err != nil {
		return err
	}
	if t.place.taken() {
		if err := fsys.Rename(p.fresh, p.db); err != nil {
			return fmt.Errorf("put the new database in place: %w", err)
		}
	} else {
		// If a file was created at the path meanwhile, a link fails; a rename would replace
		// that file.
		if err := fsys.Link(p.fresh, p.db); err != nil {
			return fmt.Errorf("put the new database in place: %w", err)
		}
		if err := durable.RemoveIfExists(fsys, p.fresh); err != nil {
			return fmt.Errorf("remove %q: %w", p.fresh, err)
		}
	}
	if err := fsys.SyncDir(p.dir); err != nil {
		return fmt.Errorf("flush directory: %w", err)
	}
	return nil
}

// settle is step 8. The vault is already complete; what settling does not finish, the next open
// does.
func (t *transition) settle(ctx context.Context) error {
	claim, err := sqlcipher.TakeClaim(t.paths.db)
	if err != nil {
		return fmt.Errorf("examine database: %w", err)
	}
	v, err := attach(t.cfg, t.paths, t.key)
	if err != nil {
		claim.Release()
		return err
	}
	if t.meta.Keyring {
		v.source = FromKeyring
		v.anchorProgress = anchorProgress{compared: t.compared, behind: t.compared, changedHere: true, urgent: true}
	}
	v.claim = claim
	defer v.Close()
	file, err := readSlotsFile(t.paths.slots)
	if err != nil {
		return err
	}
	r, err := v.prove(ctx, file)
	if err != nil {
		return err
	}
	if err := v.settleIfNeeded(ctx, r); err != nil {
		return err
	}
	return v.changeable()
}

// abandon removes what the steps made, best effort. What it leaves, the next open or run
// removes. The keyring item is deleted first, because the slots file is the only record of it.
func (t *transition) abandon(ctx context.Context, before slotsFile) {
	ctx, fsys := context.WithoutCancel(ctx), t.cfg.fs()
	now, err := readSlotsFile(t.paths.slots)
	if err != nil {
		return
	}
	alone := t.place == placeFree // there is nothing but what interrupted runs left
	if e := now.find(t.key.ID()); e == nil || len(e.Slots) == 0 {
		// Step 4 was not reached. An interrupted run's entries stay, so the file that it was
		// building must stay too.
		if _, kept := t.paths.leftovers(now); len(kept) > 0 {
			// This file is somebody's, and the reason why nothing was built.
		} else if alone && before.present() {
			err = t.emptyFresh()
		} else {
			err = t.paths.removeLeftovers(fsys, now)
		}
		if err == nil && e != nil {
			t.putBack(before)
		}
		t.removeAside()
		return
	}
	if t.meta.Keyring {
		if err := t.cfg.Keyring.Delete(ctx, t.key.ID().String()); err != nil {
			t.cfg.log().Warn("a key that was never used stays in the keyring until the next run", "account", t.key.ID(), "error", err)
			return
		}
	}
	if t.undoHandOver != nil {
		t.undoHandOver()
	}
	if alone {
		// If the entry kept its slots while the new database is removed, it would mean that a
		// vault is missing.
		before = slotsFile{}
		if err := t.announce(nil); err != nil {
			return
		}
	}
	if err := t.paths.removeLeftovers(fsys, now); err != nil {
		return
	}
	t.putBack(before)
	t.removeAside()
}

// putBack restores the old slots file, best effort.
func (t *transition) putBack(before slotsFile) {
	if before.present() {
		durable.Replace(t.cfg.fs(), t.paths.slots, before.data)
	} else if durable.RemoveIfExists(t.cfg.fs(), t.paths.slots) == nil {
		t.cfg.fs().SyncDir(t.paths.dir)
	}
}
