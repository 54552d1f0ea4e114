package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// Settling makes everything beside the database agree with the database. It runs after each
// open that finds a difference. So recovery from an interrupted transition needs no code of its
// own: the database in place decides, and settling does the rest.
//
// The order of its steps:
//
//   1. judge every entry of the slots file
//   2. flush the directory, so that a rename before a kill is durable
//   3. write the slots file; the entry of the database in place is first, and current
//   4. delete keyring items, remove what was being built
//   5. write the slots file again, with the current entry and those that must wait

// settlement is what settling found and decided.
type settlement struct {
	current  entry   // made from the tables
	swept    []entry // dropped, after their keyring items are deleted
	foreign  bool    // the slots file is copied aside first
	accepted error   // why the database is older; the operator accepted that
}

// settleIfNeeded compares the files with what was read of the vault, and settles if they
// differ. It changes nothing beside a file that was set aside.
func (v *Vault) settleIfNeeded(ctx context.Context, r reading) error {
	if v.readOnly {
		return nil
	}
	defer v.followAnchor(ctx)
	s, err := v.compare(ctx, r)
	if errors.Is(err, ErrRollback) {
		// settle reads table and file again, under the write lock.
		return v.locked(ctx, func() error { return v.settle(ctx) })
	}
	if err != nil {
		return err
	}
	left, kept := v.paths.leftovers(r.file)
	for _, path := range kept {
		v.cfg.log().Warn("a file is in the place of a new database, and no interrupted run left it: move it to another name", "path", path)
	}
	if s.accepted == nil && len(left) == 0 && bytes.Equal(r.file.data, renderSlotsFile([]entry{s.current})) {
		return nil
	}
	return v.locked(ctx, func() error { return v.settle(ctx) })
}

// compare reads the anchor, compares it and the slots file with what was read of the vault, and
// judges the entries of the file. If it returns an error, nothing was written.
func (v *Vault) compare(ctx context.Context, r reading) (settlement, error) {
	m := r.meta
	if m.KeyID != v.key.ID() {
		return settlement{}, fmt.Errorf("%w: it begins with key id %s, but its content names key id %s", ErrDamaged, v.key.ID(), m.KeyID)
	}
	v.mu.Lock()
	v.slotsSeen = r.file.info
	v.mu.Unlock()
	s := settlement{current: newEntry(m, r.slots, v.key.Check(), stateCurrent)}
	if r.replayed != nil {
		if err := v.rollback(&s, r.replayed); err != nil {
			return s, err
		}
	}
	if v.source == FromKeyring {
		err := v.compareAnchor(ctx, r)
		if errors.Is(err, ErrRollback) {
			err = v.rollback(&s, err)
		}
		if err != nil {
			return s, err
		}
	}
	return s, v.judge(r.file, &s)
}

// slotsFileStale reports whether the slots file lacks the entry that the table gives. If the
// file is still the one that was compared last, it reads neither.
func (v *Vault) slotsFileStale(ctx context.Context) bool {
	v.mu.Lock()
	seen, unsettled := v.slotsSeen, v.unsettled
	v.mu.Unlock()
	if unsettled != nil {
		return true
	}
	if now, err := os.Stat(v.paths.slots); err == nil && seen != nil && os.SameFile(seen, now) && seen.Size() == now.Size() && seen.ModTime().Equal(now.ModTime()) {
		return false
	}
	r, err := v.readAll(ctx)
	if err != nil {
		return false // the next open reports it
	}
	s, err := v.compare(ctx, r)
	if err != nil {
		return false
	}
	e := r.file.find(s.current.KeyID)
	return e == nil || !bytes.Equal(renderSlotsFile([]entry{*e}), renderSlotsFile([]entry{s.current}))
}

// judge decides about every entry of the file, before anything is written.
func (v *Vault) judge(file slotsFile, s *settlement) error {
	current := s.current
	older := func(cause string) error {
		s.foreign = true // if the operator accepts it
		return v.rollback(s, fmt.Errorf("%w: %s", ErrRollback, cause))
	}
	own := file.find(current.KeyID)
	if file.present() && own == nil {
		s.foreign = true // it belongs to another database: nothing in it is swept
	}
	if own != nil && own.SlotsSeq > current.SlotsSeq {
		if err := older(fmt.Sprintf("the slots file has seen change %d of the slots, the database only %d", own.SlotsSeq, current.SlotsSeq)); err != nil {
			return err
		}
	}
	for _, e := range file.entries {
		ours := e.VaultID == current.VaultID
		sweep := false
		switch {
		case e.KeyID == current.KeyID:
		case e.State == statePending: // its key was never used
			sweep = true
		case e.State == stateReplaced: // a restore always makes a new vault id, so a vault of this id was not replaced
			sweep = e.Keyring && !ours
		case !ours:
			s.foreign = true
			v.cfg.log().Warn("the slots file names another vault: it is copied aside", "vault_id", e.VaultID)
		case e.Generation < current.Generation: // a rotation replaced its key
			sweep = true
		default:
			if err := older(fmt.Sprintf("the slots file names generation %d of its key, made %s, the database has generation %d, made %s", e.Generation, e.Created, current.Generation, current.Created)); err != nil {
				return err
			}
		}
		if sweep && own != nil {
			s.swept = append(s.swept, e)
		}
	}
	return nil
}

// rollback returns cause. If the operator accepts it, it notes cause and returns nil.
func (v *Vault) rollback(s *settlement, cause error) error {
	if !v.cfg.AcceptRollback {
		return cause
	}
	s.accepted = cause
	return nil
}

// settle settles under the shared lock and the write lock. What cannot be swept is left for a
// later open, with a warning. But while the slots file cannot be written, nothing may change
// the vault.
func (v *Vault) settle(ctx context.Context) error {
	r, err := v.readAll(ctx) // again, now under the lock
	if err != nil {
		return err
	}
	s, err := v.compare(ctx, r)
	if err != nil {
		return err
	}
	if s.accepted != nil {
		if err := v.update(ctx, func(tx *Tx) error { return tx.auditRollback(ctx, s.accepted) }); err != nil {
			return err
		}
		v.acceptAnchor()
	}
	if err := v.writeCurrent(r.file, s); err != nil {
		v.setUnsettled(err)
		v.cfg.log().Warn("the slots file cannot be written: nothing may change the vault until it can", "error", err)
		return nil
	}
	v.setUnsettled(nil)
	waiting := v.sweepKeys(ctx, s)
	if err := v.paths.removeLeftovers(v.cfg.fs(), r.file); err != nil {
		v.cfg.log().Warn("what an interrupted run left behind cannot be removed", "error", err)
		waiting = s.swept // they are the proof that the leftovers are ours
	}
	if err := v.writeSlotsFile(append([]entry{s.current}, waiting...)); err != nil {
		v.cfg.log().Warn("the slots file keeps an entry that is not needed any more", "error", err)
	}
	return nil
}

// writeCurrent writes the slots file: first the entry of the database in place, then the
// entries to be swept.
func (v *Vault) writeCurrent(file slotsFile, s settlement) error {
	if s.foreign {
		aside, err := keepForeign(v.cfg, v.paths, file.data)
		if err != nil {
			return fmt.Errorf("copy slots file aside: %w", err)
		}
		v.cfg.log().Warn("the slots file did not match this database: it was written again", "copy", aside)
	} else if !file.present() {
		v.cfg.log().Warn("the slots file was missing: it was written again")
	} else if e := file.find(v.key.ID()); !bytes.Equal(renderSlotsFile([]entry{*e}), renderSlotsFile([]entry{s.current})) && e.State != statePending {
		v.cfg.log().Warn("the slots file differed from the database: it was written again")
	}
	// This flush comes first, even if the slots file is correct. A kill may have left the file
	// and the database under names that no flush has made durable yet. And a slots file that
	// names the new database must not reach the disk before that database does.
	if err := v.cfg.fs().SyncDir(v.paths.dir); err != nil {
		return err
	}
	return v.writeSlotsFile(append([]entry{s.current}, s.swept...))
}

// keepForeign copies a slots file aside before it is written again, and returns the path of the
// copy. If an interrupted run already made the same copy, it makes no second one.
func keepForeign(cfg Config, p paths, data []byte) (string, error) {
	base := p.foreignSlots(cfg.now())
	aside := base
	for n := 2; ; n++ {
		there, err := os.ReadFile(aside)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return aside, durable.Create(cfg.fs(), aside, data)
		case err != nil:
			return "", err
		case bytes.Equal(there, data):
			return aside, cfg.fs().SyncDir(p.dir)
		}
		aside = fmt.Sprintf("%s-%d", base, n)
	}
}

// writeSlotsFile replaces the slots file if its bytes would change.
func (v *Vault) writeSlotsFile(entries []entry) error {
	data := renderSlotsFile(entries)
	if file, err := readSlotsFile(v.paths.slots); err == nil && bytes.Equal(file.data, data) {
		return nil
	}
	return durable.Replace(v.cfg.fs(), v.paths.slots, data)
}

// sweepKeys deletes the keyring items of keys that nobody needs any more. It returns the
// entries that must wait for an open that uses the keyring. No other open may have to wait for
// a keyring.
func (v *Vault) sweepKeys(ctx context.Context, s settlement) (waiting []entry) {
	for _, e := range s.swept {
		swept := false
		switch {
		case v.source == FromKeyring:
			swept = v.sweepKeyring(ctx, e)
		case e.State == stateReplaced:
			swept = !s.current.Keyring
		case !e.Keyring || v.neededAside(e.KeyID):
			swept = true
		case !s.current.Keyring: // no open uses the keyring any more
			v.cfg.log().Warn("a keyring item that is no longer needed is left behind", "account", e.KeyID)
			swept = true
		}
		if !swept {
			waiting = append(waiting, e)
		} else if e.State == stateCurrent {
			v.removeBefore(e.KeyID)
		}
	}
	return waiting
}

// sweepKeyring does what an entry needs of the keyring, which opened the vault. If the keyring
// refuses it, it logs that and returns false.
func (v *Vault) sweepKeyring(ctx context.Context, e entry) bool {
	switch {
	case e.State == stateReplaced:
		// The key stays, because the file set aside needs it. But that file must not come back
		// in place.
		if err := setAnchorAside(ctx, v.cfg.Keyring, e.VaultID); err != nil {
			v.cfg.log().Warn("the keyring could not record that the vault was replaced: until it does, the old files could be put back unnoticed", "vault_id", e.VaultID, "error", err)
			return false
		}
	case !e.Keyring || v.neededAside(e.KeyID):
	case !e.ownsKeyringItem(ctx, v.cfg.Keyring):
		v.cfg.log().Warn("the keyring's item holds another key than the slots file names: it is left", "account", e.KeyID)
	default:
		if err := v.cfg.Keyring.Delete(ctx, e.KeyID.String()); err != nil {
			v.cfg.log().Warn("a keyring item that is no longer needed cannot be deleted", "account", e.KeyID, "error", err)
			return false
		}
	}
	return true
}

// ownsKeyringItem reports whether the keyring's item is the one that the entry names, or there
// is no item. An attacker who can write the slots file must not be able to have another vault's
// item deleted. For an item that cannot be read it returns true; Delete then reports why.
func (e entry) ownsKeyringItem(ctx context.Context, k Keyring) bool {
	value, err := k.Get(ctx, e.KeyID.String())
	if err != nil {
		return true
	}
	key, err := rootkey.ParseLine([]byte(value))
	if err != nil {
		return true // not a key
	}
	defer key.Wipe()
	return key.Check() == e.Check
}

// neededAside reports whether a file that was set aside still needs the key.
func (v *Vault) neededAside(id KeyID) bool {
	for _, path := range v.paths.of(replacedVault) {
		// A file that cannot be read may need it.
		if aside, err := peekKeyID(path); err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && aside == id {
			return true
		}
	}
	return false
}

// removeBefore removes the copies that migrations set aside under a key that a rotation
// replaced.
func (v *Vault) removeBefore(id KeyID) {
	for _, path := range v.paths.beforeCopies(id) {
		if err := durable.RemoveIfExists(v.cfg.fs(), path); err != nil {
			v.cfg.log().Warn("a copy that a migration set aside cannot be removed", "error", err)
		}
	}
}
