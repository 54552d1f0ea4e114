package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// A transition makes a new database under a new key and puts it in place: init,
// restore and rotate are its forms. Its steps, in this order:
//
//  1. where there is a database: fold its log in, close it, see its side files
//     gone
//  2. announce the new key in the slots file, by a pending entry without slots;
//     build the new database beside it, and verify it; its last change is the
//     journal mode
//  3. where restore replaces one: set copies of it and of its slots file aside
//  4. write the slots file with a pending entry for the new key
//  5. hand a new recovery identity over
//  6. put the key into the keyring, and read it back
//  7. put the new database in place: the commit
//  8. open it, and settle
//
// Each step is durable before the next begins, so whatever a kill leaves is
// either the old vault, with things beside it that the next open sweeps, or the
// new one. The exclusive lock is held throughout.
type transition struct {
	cfg   Config
	paths paths
	key   *Key
	meta  Meta
	slots []Slot

	// fill writes the rows of the new database, completes meta and slots, and tells
	// what happened, for the audit log: that row is the last one.
	fill func(ctx context.Context, tx *Tx) (Event, error)
	// vouchKeys are those of the identities in hand, by recipient: their slots vouch
	// for the new signer.
	vouchKeys map[string][]byte
	// predecessor certifies the new signer; nil: it is the vault's first.
	predecessor ssh.Signer
	// sheet says that the operator is handed the new signer's fingerprint in a file.
	sheet bool
	// wrapped has the new key for slots, by id, where it was wrapped before the locks
	// were taken.
	wrapped map[string]string
	// old is what a rotation copies from: fill sees it as "old". Else nil.
	old *attachment
	// handOver is step 5, or nil.
	handOver func(ctx context.Context) error
	// undoHandOver undoes handOver when the vault does not come to be, or nil.
	undoHandOver func()
	// inPlace is the key id of the database in place, or nil when there must be
	// none.
	inPlace *KeyID
	// replaces says that the vault in place is replaced by another one, and set
	// aside.
	replaces bool
	// replacedVault is the id of the vault that is replaced, where its key is in a keyring.
	replacedVault string
	// missing says that there is no database, but a slots file of one.
	missing bool
	// unread says that the database in place could not be opened, so its side
	// files are still there.
	unread bool
	// aside is where the replaced database was copied.
	aside string
	// compared says that the keyring's anchor was compared with what the new
	// database was made of, so it may be written.
	compared bool
	// unsettled is why settling was not done to its end behind the commit, or nil.
	unsettled error
	// stripped says that side files of the unread database are being removed:
	// from then on the copy aside is the only whole one.
	stripped bool
}

// newTransition starts a vault of generation 1.
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

// probeKeyring sees that the keyring answers before anything is made: it has no
// item for a key that is new.
func (t *transition) probeKeyring(ctx context.Context) error {
	if !t.meta.Keyring {
		return nil
	}
	if t.cfg.Keyring == nil {
		return fmt.Errorf("%w: the vault's key lies in one, and none is here to take the new key", keyring.ErrUnavailable)
	}
	switch _, err := t.cfg.Keyring.Get(ctx, t.key.id.String()); {
	case err == nil:
		return fmt.Errorf("%w: the keyring answers for a key that it was never given", ErrWrongKey)
	case !errors.Is(err, keyring.ErrNotFound):
		return err
	}
	return nil
}

// run does steps 2 to 8. On an error before the commit, the vault in place is
// untouched, and what was made is taken away as far as it can be.
func (t *transition) run(ctx context.Context) error {
	defer t.key.wipe()
	before, err := readSlotsFile(t.paths.slots)
	if err != nil {
		return err
	}
	if err := t.steps(ctx, before); err != nil {
		// A call can fail after it took effect: what stands in place says what
		// happened. When even that cannot be read, nothing is touched.
		id, e := readKeyID(t.paths.db)
		switch {
		case e == nil && id == t.key.id:
			t.cfg.log().Warn("the vault is in place, but a step behind that failed", "error", err)
		case e == nil, errors.Is(e, fs.ErrNotExist), t.unread && (errors.Is(e, ErrDamaged) || errors.Is(e, ErrPlaintext)):
			t.abandon(ctx, before)
			if t.stripped {
				err = fmt.Errorf("%w (the whole vault is in %q)", err, t.aside)
			}
			return err
		default:
			return errors.Join(err, e)
		}
	}
	// From here on the new vault stands. What settling leaves undone, the next open
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
		t.cfg.log().Warn("the slots file told of a database that is not there: it is copied aside", "copy", aside)
	}
	var entries []entry // first what is in place until the commit
	if t.inPlace != nil {
		for _, e := range before.entries {
			if t.replaces && e.KeyID == *t.inPlace {
				e.State = stateReplaced
				if e.Keyring {
					t.replacedVault = e.VaultID
				}
			}
			entries = append(entries, e)
		}
	}
	entries = append(entries, newEntry(t.meta, t.slots, t.key.check(), statePending))
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

// build is step 2.
func (t *transition) build(ctx context.Context, before slotsFile) (err error) {
	fsys, fresh := t.cfg.fs(), t.paths.fresh
	if _, kept := t.paths.leftovers(before); len(kept) > 0 {
		return fmt.Errorf("%w: %q: it stands where the new database is built, and no interrupted run left it: move it to another name", ErrFileExists, kept[0])
	}
	// An interrupted run's database gives way to an empty file in one step: a
	// pending entry without one beside it would say that a vault is missing.
	if err := t.emptyFresh(); err != nil {
		return err
	}
	if before.err == nil { // else nothing may replace it yet
		if err := t.announce(before.entries); err != nil {
			return err
		}
	}
	s, err := buildStore(t.cfg, fresh, t.key, t.meta.VaultID, t.old)
	if err != nil {
		return err
	}
	err = s.migrate(ctx, 0)
	if err == nil {
		_, err = s.update(ctx, func(tx *Tx) error { return t.fillAll(ctx, tx) })
	}
	if err == nil {
		err = s.db.CheckPages(ctx)
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
	if err := sqlcipher.CheckNoSideFiles(fresh); err != nil {
		return err
	}
	if err := fsys.Sync(fresh); err != nil {
		return err
	}
	return fsys.SyncDir(t.paths.dir)
}

// announce writes the slots file with an entry for the new key that has no slots
// yet, so that what a kill leaves of the new database is known for what it is.
func (t *transition) announce(entries []entry) error {
	announced := newEntry(t.meta, nil, t.key.check(), statePending)
	announced.Keyring = false // nothing was put into it
	// One without slots only told of what was being built before.
	entries = slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return e.State == statePending && len(e.Slots) == 0 })
	entries = append(entries, announced)
	if err := durable.Replace(t.cfg.fs(), t.paths.slots, renderSlotsFile(entries)); err != nil {
		return fmt.Errorf("write slots file: %w", err)
	}
	return nil
}

// fillAll writes what every new vault has around what fill writes.
func (t *transition) fillAll(ctx context.Context, tx *Tx) error {
	event, err := t.fill(ctx, tx)
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
	return tx.Audit(ctx, event) // digests what stands now
}

// makeSigner makes the signing key of the new generation, has its predecessor certify
// it, and binds the new root key to the vault.
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

// commit is step 7: after it the new database is the vault.
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
		// A link fails where a rename would replace a file that came since.
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

// settle is step 8. The vault is whole already; what settling leaves undone the
// next open does.
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
	r, err := v.prove(ctx)
	if err != nil {
		return err
	}
	if err := v.settleIfNeeded(ctx, r); err != nil {
		return err
	}
	return v.changeable()
}

// abandon takes away what the steps made, best effort: what it leaves, the next
// open or run sweeps. The keyring item goes first, for the slots file is what
// tells of it.
func (t *transition) abandon(ctx context.Context, before slotsFile) {
	ctx, fsys := context.WithoutCancel(ctx), t.cfg.fs()
	now, err := readSlotsFile(t.paths.slots)
	if err != nil {
		return
	}
	alone := t.inPlace == nil && !t.missing // nothing stands besides interrupted runs
	if e := now.find(t.key.id); e == nil || len(e.Slots) == 0 {
		// Step 4 was not reached. An interrupted run's entries stand, and so must
		// what it was building.
		if _, kept := t.paths.leftovers(now); len(kept) > 0 {
			// It is somebody's, and the reason why nothing was built.
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
		// With its slots, an entry without what was being built would say that a
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

// emptyFresh makes what was being built an empty file again.
func (t *transition) emptyFresh() error {
	for _, path := range sqlcipher.SideFiles(t.paths.fresh) {
		if err := durable.RemoveIfExists(t.cfg.fs(), path); err != nil {
			return err
		}
	}
	return durable.Replace(t.cfg.fs(), t.paths.fresh, nil)
}

// putBack makes the slots file what it was, best effort.
func (t *transition) putBack(before slotsFile) {
	if before.present() {
		durable.Replace(t.cfg.fs(), t.paths.slots, before.data)
	} else if durable.RemoveIfExists(t.cfg.fs(), t.paths.slots) == nil {
		t.cfg.fs().SyncDir(t.paths.dir)
	}
}

// setAside is step 3.
func (t *transition) setAside() error {
	base := t.paths.replaced(t.cfg.now())
	t.aside = base
	for n := 2; ; n++ {
		if ok, err := durable.Exists(t.aside); err != nil {
			return err
		} else if !ok {
			break
		}
		t.aside = fmt.Sprintf("%s-%d", base, n)
	}
	// The database comes first, for its name decides whether a name is taken.
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

// removeAside removes the copies of a database that was not replaced after all.
func (t *transition) removeAside() {
	if t.aside == "" || t.stripped {
		return
	}
	for _, suffix := range []string{"", "-wal", "-journal", ".slots"} {
		durable.RemoveIfExists(t.cfg.fs(), t.aside+suffix)
	}
}

// clearInterruptedRun prepares a place without a database: an interrupted run's keyring
// items are deleted, while its entries stand until step 4 replaces them. It
// returns the recipients of its slots.
//
// The keyring is asked whatever useKeyring says; but only where the new key is to
// go into it must it answer.
func clearInterruptedRun(ctx context.Context, cfg Config, p paths, restoring, useKeyring bool) (recipients []string, missingDB bool, err error) {
	for _, path := range sqlcipher.SideFiles(p.db) {
		if ok, err := durable.Exists(path); err != nil {
			return nil, false, err
		} else if ok {
			return nil, false, fmt.Errorf("%w: there is %q, but no %q", ErrMissing, path, filepath.Base(p.db))
		}
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
		return nil, true, nil // copied aside when the backup has been read and verified
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
