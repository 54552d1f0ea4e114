package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// A transition makes a new database under a new key and puts it in place. Init, restore and
// rotate are transitions. The steps, in this order:
//
//  1. if there is a database: checkpoint its write-ahead log, close it, and check that its side
//     files are gone
//  2. announce the new key in the slots file by a pending entry without slots; build the new
//     database beside the old one and verify it; its last change is the journal mode
//  3. if restore replaces a database: set copies of it and of its slots file aside
//  4. write the slots file with a pending entry for the new key, with its slots
//  5. hand over a new recovery identity
//  6. put the key into the keyring, and read it back
//  7. put the new database in place: this is the commit
//  8. open it, and settle
//
// Each step is durable before the next one begins. So a kill leaves either the old vault, with
// leftovers beside it that the next open removes, or the new vault. The exclusive lock is held
// throughout.
type transition struct {
	cfg   Config
	paths paths
	key   *Key
	meta  Meta
	slots []Slot

	// fill writes the rows of the new database and completes meta and slots. The event that it
	// returns becomes the last audit row.
	fill func(ctx context.Context, tx *Tx) (Event, error)
	// vouchKeys are the vouch keys of the identities at hand, by recipient. Their slots vouch
	// for the new signer.
	vouchKeys map[string][]byte
	// predecessor certifies the new signer. Nil: it is the vault's first signer.
	predecessor ssh.Signer
	// sheet says that the operator gets the new signer's fingerprint in a file.
	sheet bool
	// wrapped is the new key wrapped for slots, by slot id, if that was done before the locks
	// were taken.
	wrapped map[string]string
	// old is the database that a rotation copies from. fill sees it as "old". Nil otherwise.
	old *attachment
	// handOver is step 5, or nil.
	handOver func(ctx context.Context) error
	// undoHandOver undoes handOver if the vault is not made after all, or nil.
	undoHandOver func()
	// inPlace is the key id of the database in place, or nil if there must be none.
	inPlace *KeyID
	// replaces says that the vault in place is set aside, and another vault replaces it.
	replaces bool
	// replacedVault is the id of the vault that is replaced, if its key is in a keyring.
	replacedVault string
	// missing says that there is a slots file but no database.
	missing bool
	// unread says that the database in place could not be opened, so its side files are still
	// there.
	unread bool
	// aside is the path of the copy of the replaced database.
	aside string
	// compared says that the keyring's anchor was compared with the database from which the new
	// one was made. So the anchor may be written.
	compared bool
	// unsettled is why settling after the commit was not finished, or nil.
	unsettled error
	// stripped says that side files of the unread database are being removed. From then on the
	// copy aside is the only complete one.
	stripped bool
}

// newTransition returns a transition to a vault of generation 1, with a new key.
func newTransition(cfg Config, p paths, keyring bool) *transition {
	key, now := generateKey(), cfg.now()
	return &transition{cfg: cfg, paths: p, key: key, compared: true, meta: Meta{
		VaultID:    uuid.NewString(),
		KeyID:      key.id,
		Generation: 1,
		Created:    now,
		KeyCreated: now,
		Keyring:    keyring,
	}}
}

// probeKeyring checks that the keyring answers, before anything is made. The answer must be
// that it has no item for the new key.
func (t *transition) probeKeyring(ctx context.Context) error {
	if !t.meta.Keyring {
		return nil
	}
	if t.cfg.Keyring == nil {
		return fmt.Errorf("%w: the vault's key is in a keyring, but there is no keyring here for the new key", keyring.ErrUnavailable)
	}
	switch _, err := t.cfg.Keyring.Get(ctx, t.key.id.String()); {
	case err == nil:
		return fmt.Errorf("%w: the keyring has an item for a new key that it was never given", ErrWrongKey)
	case !errors.Is(err, keyring.ErrNotFound):
		return err
	}
	return nil
}

// run does steps 2 to 8. On an error before the commit, the vault in place is unchanged, and
// what was made is removed as far as possible.
func (t *transition) run(ctx context.Context) error {
	defer t.key.wipe()
	before, err := readSlotsFile(t.paths.slots)
	if err != nil {
		return err
	}
	if err := t.steps(ctx, before); err != nil {
		// A call can fail after it took effect, so the file in place decides what happened. If
		// even that cannot be read, nothing is touched.
		id, e := readKeyID(t.paths.db)
		switch {
		case e == nil && id == t.key.id:
			t.cfg.log().Warn("the vault is in place, but a later step failed", "error", err)
		case e == nil, errors.Is(e, fs.ErrNotExist), t.unread && (errors.Is(e, ErrDamaged) || errors.Is(e, ErrPlaintext)):
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

func (t *transition) steps(ctx context.Context, before slotsFile) error {
	if err := t.build(ctx, before); err != nil {
		return fmt.Errorf("build the new database: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.replaces {
		if err := t.setAside(); err != nil {
			return fmt.Errorf("set the vault in place aside: %w", err)
		}
	}
	if t.missing {
		aside, err := keepForeign(t.cfg, t.paths, before.data)
		if err != nil {
			return fmt.Errorf("copy slots file aside: %w", err)
		}
		t.cfg.log().Warn("the slots file names a database that does not exist: it is copied aside", "copy", aside)
	}
	entries := append(t.entriesInPlace(before), newEntry(t.meta, t.slots, t.key.check(), statePending))
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
		line := t.key.line()
		defer wipe(line)
		if err := t.cfg.Keyring.Set(ctx, t.key.id.String(), string(line)); err != nil {
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
	if t.inPlace == nil {
		return nil
	}
	entries := slices.Clone(before.entries)
	for i, e := range entries {
		if t.replaces && e.KeyID == *t.inPlace {
			entries[i].State = stateReplaced
			if e.Keyring {
				t.replacedVault = e.VaultID
			}
		}
	}
	return entries
}

// build is step 2.
func (t *transition) build(ctx context.Context, before slotsFile) error {
	fsys, fresh := t.cfg.fs(), t.paths.fresh
	if err := t.checkFresh(before); err != nil {
		return err
	}
	// An empty file replaces an interrupted run's database in one step. If the file were
	// removed, a pending entry without it would mean that a vault is missing.
	if err := t.emptyFresh(); err != nil {
		return err
	}
	if before.err == nil { // else the unreadable slots file must not be replaced yet
		if err := t.announce(before.entries); err != nil {
			return err
		}
	}
	if err := t.buildAt(ctx, fresh); err != nil {
		return err
	}
	if err := fsys.Sync(fresh); err != nil {
		return err
	}
	return fsys.SyncDir(t.paths.dir)
}

// buildAt builds the new database in an empty file. It leaves no side file.
func (t *transition) buildAt(ctx context.Context, path string) error {
	s, err := buildStore(t.cfg, path, t.key, t.meta.VaultID, t.old)
	if err != nil {
		return err
	}
	err = s.migrate(ctx, 0)
	if err == nil {
		_, err = s.update(ctx, func(tx *Tx) error { return t.fillAll(ctx, tx) })
	}
	if err == nil {
		err = s.checkBuilt(ctx)
	}
	if err == nil {
		err = s.db.UseLog(ctx)
	}
	if e := s.close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return sqlcipher.CheckNoSideFiles(path)
}

// checkBuilt verifies every page of a new database. Meanwhile it compares the rows with the audit
// row that was written for them.
func (s *store) checkBuilt(ctx context.Context) error {
	rows := make(chan error, 1)
	go func() { rows <- s.view(ctx, func(tx *Tx) error { return tx.VerifyContent(ctx) }) }()
	err := s.db.CheckPages(ctx)
	if e := <-rows; err == nil && e != nil {
		err = fmt.Errorf("compare the rows with those that were inserted: %w", e)
	}
	return err
}

// announce writes the slots file with an entry for the new key that has no slots yet. If a kill
// leaves a part of the new database, this entry shows what it is.
func (t *transition) announce(entries []entry) error {
	announced := newEntry(t.meta, nil, t.key.check(), statePending)
	announced.Keyring = false // nothing is in the keyring yet
	// An entry without slots only announced what was being built before.
	entries = slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return e.State == statePending && len(e.Slots) == 0 })
	entries = append(entries, announced)
	if err := durable.Replace(t.cfg.fs(), t.paths.slots, renderSlotsFile(entries)); err != nil {
		return fmt.Errorf("write slots file: %w", err)
	}
	return nil
}

// fillAll writes what every new vault has, and calls fill for the rest.
func (t *transition) fillAll(ctx context.Context, tx *Tx) error {
	if t.old == nil { // a rotation copies by other statements
		if err := tx.sumInserted(ctx); err != nil {
			return fmt.Errorf("read columns: %w", err)
		}
	}
	var event Event
	err := tx.withoutTriggers(ctx, func() (err error) {
		event, err = t.fill(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.makeSigner(ctx, tx); err != nil {
		return err
	}
	for i := range t.slots {
		if key := t.vouchKeys[t.slots[i].Recipient]; key != nil {
			t.slots[i].vouch = vouchFor(key, t.meta.VaultID, t.meta.Signer)
		}
		if wrapped, ok := t.wrapped[t.slots[i].ID]; ok {
			t.slots[i].wrapped = wrapped
		} else if err := t.slots[i].wrap(ctx, t.key, t.cfg.Plugins); err != nil {
			return err
		}
		if err := insertSlot(ctx, tx, t.slots[i]); err != nil {
			return fmt.Errorf("write slot: %w", err)
		}
	}
	if t.slots, err = selectSlots(ctx, tx); err != nil { // in the order of the slots file
		return fmt.Errorf("read slots: %w", err)
	}
	if err := insertMeta(ctx, tx, t.meta); err != nil {
		return fmt.Errorf("write vault_meta: %w", err)
	}
	return tx.Audit(ctx, event) // this row holds the digest of all rows
}

// makeSigner makes the signing key of the new generation. The predecessor certifies it, and it
// signs the binding of the new root key to the vault.
func (t *transition) makeSigner(ctx context.Context, tx *Tx) error {
	line, privatePEM, err := newSigningKey()
	if err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	defer wipe(privatePEM)
	s := Signer{Generation: t.meta.Generation, PublicKey: line, Created: t.meta.KeyCreated}
	if t.sheet {
		s.Sheet = s.Created
	}
	if t.predecessor != nil {
		certificate, err := Sign(certifiedText(t.meta.VaultID, line), t.predecessor, certificateNamespace)
		if err != nil {
			return fmt.Errorf("certify the signing key: %w", err)
		}
		s.Certificate = string(certificate)
	}
	if err := insertSigner(ctx, tx, s); err != nil {
		return fmt.Errorf("write signer: %w", err)
	}
	t.meta.Signer = line
	if t.meta.signingKey, err = tx.Seal(ctx, SealedSigningKey, t.meta.SignerFingerprint(), privatePEM); err != nil {
		return err
	}
	signer, err := parseSigningKey(privatePEM)
	if err != nil {
		return err
	}
	binding, err := Sign(boundText(t.meta, t.key.check()), signer, bindingNamespace)
	t.meta.binding = string(binding)
	return err
}

// commit is step 7. After it the new database is the vault.
func (t *transition) commit() error {
	fsys, p := t.cfg.fs(), t.paths
	if t.unread {
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
	if t.inPlace != nil {
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
	alone := t.inPlace == nil && !t.missing // there is nothing but what interrupted runs left
	if e := now.find(t.key.id); e == nil || len(e.Slots) == 0 {
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
		if err := t.cfg.Keyring.Delete(ctx, t.key.id.String()); err != nil {
			t.cfg.log().Warn("a key that was never used stays in the keyring until the next run", "account", t.key.id, "error", err)
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

// emptyFresh replaces the database that was being built by an empty file.
func (t *transition) emptyFresh() error {
	for _, path := range sqlcipher.SideFiles(t.paths.fresh) {
		if err := durable.RemoveIfExists(t.cfg.fs(), path); err != nil {
			return err
		}
	}
	return durable.Replace(t.cfg.fs(), t.paths.fresh, nil)
}

// putBack restores the old slots file, best effort.
func (t *transition) putBack(before slotsFile) {
	if before.present() {
		durable.Replace(t.cfg.fs(), t.paths.slots, before.data)
	} else if durable.RemoveIfExists(t.cfg.fs(), t.paths.slots) == nil {
		t.cfg.fs().SyncDir(t.paths.dir)
	}
}

// setAside is step 3.
func (t *transition) setAside() error {
	if err := t.nameAside(); err != nil {
		return err
	}
	// The database comes first: whether the name is taken is decided by this file.
	suffixes := []string{"", ".slots"}
	if t.unread {
		suffixes = append(suffixes, "-wal", "-journal")
	}
	for _, suffix := range suffixes {
		ok, err := durable.Exists(t.paths.db + suffix)
		if err == nil && ok {
			err = durable.Copy(t.cfg.fs(), t.paths.db+suffix, t.aside+suffix)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nameAside chooses a free name for the vault that is set aside.
func (t *transition) nameAside() error {
	base := t.paths.replaced(t.cfg.now())
	t.aside = base
	for n := 2; ; n++ {
		if ok, err := durable.Exists(t.aside); err != nil || !ok {
			return err
		}
		t.aside = fmt.Sprintf("%s-%d", base, n)
	}
}

// removeAside removes the copies of a database that was not replaced after all.
func (t *transition) removeAside() {
	if t.aside == "" || t.stripped {
		return
	}
	for _, suffix := range []string{"", "-wal", "-journal", ".slots"} {
		durable.RemoveIfExists(t.cfg.fs(), t.aside+suffix)
	}
}

// clearInterruptedRun prepares a place without a database. It deletes the keyring items of an
// interrupted run. The entries of that run stay until step 4 replaces them. It returns the
// recipients of their slots.
//
// The keyring is asked even if useKeyring is false. But it must answer only if the new key is
// to be stored in it.
func clearInterruptedRun(ctx context.Context, cfg Config, p paths, restoring, useKeyring bool) (recipients []string, missingDB bool, err error) {
	if err := noSideFiles(p); err != nil {
		return nil, false, err
	}
	file, err := readSlotsFile(p.slots)
	if err != nil {
		return nil, false, err
	}
	if !file.present() {
		return nil, false, nil
	}
	if !file.interrupted(p) {
		if !restoring {
			return nil, false, missing(p)
		}
		return nil, true, nil // it is copied aside once the backup has been read and verified
	}
	for _, e := range file.entries {
		for _, s := range e.Slots {
			recipients = append(recipients, s.Recipient)
		}
		switch {
		case !e.Keyring:
		case cfg.Keyring == nil:
			cfg.log().Warn("an interrupted run left a keyring item behind", "account", e.KeyID)
		default:
			err := cfg.Keyring.Delete(ctx, e.KeyID.String())
			if err != nil && useKeyring {
				return nil, false, fmt.Errorf("delete the keyring item of an interrupted run: %w", err)
			} else if err != nil {
				cfg.log().Warn("an interrupted run may have left a keyring item behind", "account", e.KeyID, "error", err)
			}
		}
	}
	return recipients, false, nil
}
