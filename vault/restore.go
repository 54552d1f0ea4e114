package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"filippo.io/age/plugin"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// RestoreOptions says what a new vault is made of.
type RestoreOptions struct {
	// Fill writes the rows of the new database, and tells the rest. It has
	// verified everything when it returns nil; on an error nothing changes.
	Fill func(ctx context.Context, tx *Tx) (Backup, error)
	// NoKeyring keeps the new key out of cfg.Keyring.
	NoKeyring bool
	// Replace allows a vault at the path: it is set aside.
	Replace bool
	// ConfirmInPlace is asked where what is in place does not open, or nothing vouches
	// for it, and so its recipients are not proven. An error ends the restore. Nil: it
	// ends too. No lock is held meanwhile.
	ConfirmInPlace func(context.Context, InPlace) error
}

// InPlace is what is known of a vault that is to be replaced, or whose database is
// missing, and that nothing vouches for.
type InPlace struct {
	Cause error // why
	// Recipients are those that the slots file names; whoever can write that could have
	// changed it. Of the backup's, only these are kept. Nil: they are not known, and
	// all of the backup's are kept, removed ones too.
	Recipients []Slot
	// Lost says that the database is not there.
	Lost bool
}

// Backup is what a backup says besides its rows.
type Backup struct {
	Slots         []Slot
	OriginVaultID string
	OriginSigner  string // public key line
	Detail        string // for the audit log: which backup
}

// RestoredVault tells of a vault made by [Restore].
type RestoredVault struct {
	Created
	Aside   string // where the replaced vault is now, or ""
	LeftOut []Slot // recipients of the backup that the replaced vault no longer had
}

// Restore makes a new vault of a backup's content at cfg.Path: with an id, a key
// and a signing key of its own, and the backup's recipients. A vault in place is
// refused with [ErrExists], or replaced and set aside; what it no longer had of
// the recipients is left out.
//
// Other errors are those of [Create] and [Open], and Fill's. After any of them
// the vault in place is as it was.
func Restore(ctx context.Context, cfg Config, opts RestoreOptions) (RestoredVault, error) {
	p, err := newVaultPaths(cfg.Path)
	if err != nil {
		return RestoredVault{}, err
	}
	if !opts.Replace {
		if err := mustNotExist(p); err != nil {
			return RestoredVault{}, err
		}
	}
	t := newTransition(cfg, p, cfg.Keyring != nil && !opts.NoKeyring)
	if err := t.probeKeyring(ctx); err != nil {
		return RestoredVault{}, err
	}
	if err := makeDir(cfg.fs(), p.dir); err != nil {
		return RestoredVault{}, err
	}
	if err := p.checkPrivate(); err != nil {
		return RestoredVault{}, err
	}
	if err := p.checkPlace(cfg); err != nil {
		return RestoredVault{}, err
	}
	// What may ask a person or a keyring comes before the lock.
	old, err := examineOldVault(ctx, cfg, p)
	if err != nil {
		return RestoredVault{}, err
	}
	defer old.wipe()
	if err := old.confirm(ctx, opts.ConfirmInPlace); err != nil {
		return RestoredVault{}, err
	}
	lock := durable.NewLock(p.lock)
	if err := take(ctx, cfg, lock, lock.Exclusive); err != nil {
		return RestoredVault{}, err
	}
	defer lock.Unlock()

	exists, err := durable.Exists(p.db)
	switch {
	case err != nil:
		return RestoredVault{}, err
	case exists && !opts.Replace:
		return RestoredVault{}, fmt.Errorf("%q %w", p.db, ErrExists)
	case exists != old.exists:
		return RestoredVault{}, errChangedMeanwhile
	case exists:
		if err := t.closeOldVault(ctx, &old); err != nil {
			return RestoredVault{}, err
		}
	default:
		if _, t.missing, err = clearInterruptedRun(ctx, cfg, p, true, t.meta.Keyring); err != nil {
			return RestoredVault{}, err
		}
	}

	var leftOut []Slot
	t.fill = func(ctx context.Context, tx *Tx) (Event, error) {
		r, err := opts.Fill(ctx, tx)
		if err != nil {
			return Event{}, err
		}
		// Now the identities that were under a passphrase are open.
		t.vouchKeys = vouchKeys(cfg.Identities)
		t.meta.OriginVaultID, t.meta.OriginSigner = r.OriginVaultID, r.OriginSigner
		t.slots, leftOut = r.Slots, nil
		if old.slots != nil {
			if t.slots, leftOut, err = stillThere(r.Slots, old.slots); err != nil {
				return Event{}, err
			}
		}
		slots := slices.Clone(t.slots)
		if t.meta.Class, err = identity.Await(ctx, func() (identity.Class, error) { return classOf(slots, cfg.Plugins) }); err != nil {
			return Event{}, err
		}
		detail := fmt.Sprintf("from vault %s, %s", r.OriginVaultID, r.Detail)
		if len(leftOut) > 0 {
			detail += fmt.Sprintf(", %d recipients left out", len(leftOut))
		}
		return Event{Action: "vault.restore", Subject: t.meta.VaultID, Detail: detail}, nil
	}
	if err := t.run(ctx); err != nil {
		return RestoredVault{}, err
	}
	t.setReplacedAside(ctx)
	return RestoredVault{
		Created: Created{
			Path:    p.db,
			VaultID: t.meta.VaultID,
			KeyID:   t.meta.KeyID,
			Signer:  t.meta.Signer,
			Slots:   t.slots,
		},
		Aside:   t.aside,
		LeftOut: leftOut,
	}, nil
}

var errChangedMeanwhile = fmt.Errorf("%w: another process changed what is in place meanwhile: try again", ErrLocked)

// oldVault is what a restore finds where its vault is to be.
type oldVault struct {
	exists bool
	id     KeyID
	key    *Key   // that opens it; nil: none at hand does
	source Source // of the key
	// slots are its recipients; nil: they are not known, or there never was a vault.
	slots []Slot
	// cause is why nothing vouches for them; nil: the vault does, or there is none.
	cause error
}

func (old oldVault) wipe() {
	if old.key != nil {
		old.key.wipe()
	}
}

// confirm asks about recipients that nothing vouches for: a reader who was removed must
// not come back unsaid.
func (old oldVault) confirm(ctx context.Context, ask func(context.Context, InPlace) error) error {
	switch {
	case old.cause == nil:
		return nil
	case ask == nil && !old.exists:
		return old.cause
	case ask == nil:
		return fmt.Errorf("the vault in place cannot be opened, so it is not replaced: %w", old.cause)
	}
	return ask(ctx, InPlace{Cause: old.cause, Recipients: old.slots, Lost: !old.exists})
}

// examineOldVault opens the vault in place and closes it again. It finds the recipients
// of the vault: in its table, where something vouches for it; else in the slots file's
// entry, which proves nothing.
func examineOldVault(ctx context.Context, cfg Config, p paths) (oldVault, error) {
	exists, err := durable.Exists(p.db)
	if err != nil {
		return oldVault{}, err
	}
	file, err := readSlotsFile(p.slots)
	if err != nil {
		return oldVault{}, err
	}
	if !exists {
		if !file.present() || file.interrupted(p) {
			return oldVault{}, nil
		}
		old := oldVault{cause: missing(p)}
		if len(file.entries) > 0 {
			old.slots = file.entries[0].Slots
		}
		return old, nil
	}
	lock := durable.NewLock(p.lock)
	if err := take(ctx, cfg, lock, lock.Shared); err != nil {
		return oldVault{}, err
	}
	defer lock.Unlock()
	old := oldVault{exists: true}
	v, r, err := openOldVault(ctx, cfg, p)
	if err == nil {
		defer v.Close()
		key := *v.key
		old.id, old.key, old.source, old.slots = key.id, &key, v.source, r.slots
		if err = r.replayed; err == nil {
			err = v.checkSigner(ctx, r)
		}
	}
	if err == nil {
		return old, nil
	}
	if !unproven(err) || ctx.Err() != nil {
		old.wipe()
		return oldVault{}, err // in use, newer, or of passing cause
	}
	old.cause, old.slots = err, nil
	if v == nil {
		old.id, _ = readKeyID(p.db) // any file: only its entry is looked up by it
	}
	if e := file.find(old.id); e != nil {
		old.slots = e.Slots
	}
	return old, nil
}

// openOldVault opens what is in place, whoever vouches for it. The identities were given
// for the backup, and the vault in place may have never known them.
func openOldVault(ctx context.Context, cfg Config, p paths) (*Vault, reading, error) {
	cfg.ConfirmSigner, cfg.Signer = nil, "" // those are the backup's
	cfg.anySigner = true
	v, r, err := openUnder(ctx, cfg, p)
	if len(cfg.Identities) > 0 && (errors.Is(err, ErrWrongKey) || errors.Is(err, ErrNoWayIn) || errors.Is(err, ErrUnknownKeyID)) {
		cfg.Identities = nil
		if other, theirs, e := openUnder(ctx, cfg, p); e == nil {
			v, r, err = other, theirs, nil
		}
	}
	return v, r, err
}

// unproven reports whether an error says that what is in place cannot be opened, or that
// nothing vouches for it.
func unproven(err error) bool {
	for _, cause := range []error{
		ErrDamaged, ErrPlaintext, ErrWrongKey, ErrNoWayIn, ErrUnknownKeyID, keyring.ErrUnavailable,
		ErrUnvouched, ErrForeignSigner, ErrOtherVault,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// closeOldVault is step 1: it opens and settles the vault in place by the key that
// opened it before, checkpoints it and closes it.
//
// The recipients are looked at again: one that was removed while the operator was asked
// must not come back.
func (t *transition) closeOldVault(ctx context.Context, old *oldVault) error {
	if id, _ := readKeyID(t.paths.db); id != old.id {
		return errChangedMeanwhile
	}
	if old.cause != nil { // they are the slots file's
		file, err := readSlotsFile(t.paths.slots)
		if err != nil {
			return err
		}
		var now []Slot
		if e := file.find(old.id); e != nil {
			now = e.Slots
		}
		if !slices.EqualFunc(now, old.slots, func(a, b Slot) bool { return a.Recipient == b.Recipient }) {
			return errChangedMeanwhile
		}
	}
	t.inPlace, t.replaces, t.unread = &old.id, true, old.key == nil
	if t.unread {
		return nil
	}
	cfg := t.cfg
	cfg.known, cfg.anySigner = &unlocked{key: old.key, source: old.source}, true
	v, r, err := openUnder(ctx, cfg, t.paths)
	if err != nil {
		return err
	}
	if err = v.settleIfNeeded(ctx, r); err == nil {
		err = v.changeable()
	}
	var now []Slot
	if err == nil {
		_, now, err = v.metaAndSlots(ctx)
	}
	if err != nil {
		v.Close()
		return err
	}
	if old.cause == nil {
		old.slots = now
	}
	return v.quiesce(ctx)
}

// setReplacedAside has the keyring note that the vault was replaced, where the new one
// does not use it and so does not settle that.
func (t *transition) setReplacedAside(ctx context.Context) {
	if t.replacedVault == "" || t.meta.Keyring || t.cfg.Keyring == nil {
		return
	}
	if err := setAnchorAside(context.WithoutCancel(ctx), t.cfg.Keyring, t.replacedVault); err != nil {
		t.cfg.log().Warn("the keyring does not note that the vault was replaced: its files could be put back unnoticed", "vault_id", t.replacedVault, "error", err)
	}
}

// stillThere divides a backup's slots into those whose recipients the vault in
// place has, and the others: a reader who was removed must not come back.
func stillThere(backup, current []Slot) (kept, leftOut []Slot, err error) {
	has := map[string]bool{}
	for _, s := range current {
		has[s.Recipient] = true
	}
	lasting := false
	for _, s := range backup {
		if !has[s.Recipient] {
			leftOut = append(leftOut, s)
			continue
		}
		kept = append(kept, s)
		lasting = lasting || s.Durable()
	}
	if !lasting {
		return nil, nil, fmt.Errorf("%w: the vault in place has none of the backup's recovery and recipient keys, and one that was removed must not come back: restore to another path", ErrInvalid)
	}
	return kept, leftOut, nil
}

// classOf returns the one class of the slots' recipients.
func classOf(slots []Slot, ui *plugin.ClientUI) (identity.Class, error) {
	if len(slots) == 0 {
		return "", fmt.Errorf("%w: the backup has no recipients, and a vault needs one", ErrInvalid)
	}
	r, err := identity.ParseRecipient(slots[0].Recipient, ui)
	if err != nil {
		return "", err
	}
	class, err := identity.ClassOf(r)
	if err != nil {
		return "", err
	}
	for _, s := range slots[1:] {
		if err := identity.CheckClass(s.Recipient, class, ui); err != nil {
			return "", err
		}
	}
	return class, nil
}
