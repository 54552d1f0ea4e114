package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

var errChangedMeanwhile = fmt.Errorf("%w: another process changed the vault in place meanwhile: try again", ErrLocked)

// oldVault is what a restore finds in the place of its new vault.
type oldVault struct {
	exists bool
	id     KeyID
	key    *Key   // opens it; nil: no key at hand does
	source Source // of the key
	// slots are its recipients. Nil: they are not known, or there was no vault.
	slots []Slot
	// cause is why nothing vouches for them. Nil: the vault vouches for them, or there is none.
	cause error
}

// place is what the vault is to the transition that replaces it.
func (old oldVault) place() place {
	if old.key == nil {
		return placeUnread
	}
	return placeOther
}

func (old oldVault) wipe() {
	if old.key != nil {
		old.key.Wipe()
	}
}

// UnprovenVault is what is known about a vault that is to be replaced, or whose database is missing,
// if nothing vouches for it.
type UnprovenVault struct {
	Cause error // why nothing vouches for it
	// Recipients are those in the slots file. An attacker who can write that file could have
	// changed them. Of the backup's recipients, only these are kept. Nil: they are not known.
	// Then all recipients of the backup are kept, also removed ones.
	Recipients []Slot
	// Lost says that the database does not exist.
	Lost bool
}

// confirm asks about recipients that nothing vouches for. Without the question, a reader who
// was removed could come back unnoticed.
func (old oldVault) confirm(ctx context.Context, ask func(context.Context, UnprovenVault) error) error {
	switch {
	case old.cause == nil:
		return nil
	case ask == nil && !old.exists:
		return old.cause
	case ask == nil:
		return fmt.Errorf("the vault in place cannot be opened, so it is not replaced: %w", old.cause)
	}
	return ask(ctx, UnprovenVault{Cause: old.cause, Recipients: old.slots, Lost: !old.exists})
}

// examineOldVault opens the vault in place and closes it again. It finds the recipients of the
// vault. If something vouches for the vault, they are read from its table. Otherwise they are
// read from its entry in the slots file, which proves nothing.
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
		old.id, old.key, old.source, old.slots = key.ID(), &key, v.source, r.slots
		if err = r.replayed; err == nil {
			err = v.checkSigner(ctx, r)
		}
	}
	if err == nil {
		return old, nil
	}
	if !unproven(err) || ctx.Err() != nil {
		old.wipe()
		return oldVault{}, err // in use, newer, or a temporary cause
	}
	old.cause, old.slots = err, nil
	if v == nil {
		old.id, _ = readKeyID(p.db) // of any file; it is only used to find the entry
	}
	if e := file.find(old.id); e != nil {
		old.slots = e.Slots
	}
	return old, nil
}

// openOldVault opens the vault in place without a check of its signer. The identities were
// given for the backup. If they do not open the vault in place, the other sources are tried.
func openOldVault(ctx context.Context, cfg Config, p paths) (*Vault, reading, error) {
	cfg.ConfirmSigner, cfg.Signer = nil, "" // those are the backup's
	cfg.anySigner = true
	v, r, err := openUnder(ctx, cfg, p, nil)
	if len(cfg.Identities) > 0 && (errors.Is(err, ErrWrongKey) || errors.Is(err, ErrNoUnlockMethod) || errors.Is(err, ErrUnknownKeyID)) {
		cfg.Identities = nil
		if other, theirs, e := openUnder(ctx, cfg, p, nil); e == nil {
			v, r, err = other, theirs, nil
		}
	}
	return v, r, err
}

// unproven reports whether the error says that the vault in place cannot be opened, or that
// nothing vouches for it.
func unproven(err error) bool {
	for _, cause := range []error{
		ErrDamaged, ErrPlaintext, ErrWrongKey, ErrNoUnlockMethod, ErrUnknownKeyID, keyring.ErrUnavailable,
		ErrUnvouched, ErrForeignSigner, ErrOtherVault,
	} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// closeOldVault is step 1. It opens and settles the vault in place by the key that opened it
// before, checkpoints it and closes it.
//
// It reads the recipients again: one that was removed while the operator was asked must not
// come back.
func (t *transition) closeOldVault(ctx context.Context, old *oldVault) error {
	if id, _ := readKeyID(t.paths.db); id != old.id {
		return errChangedMeanwhile
	}
	if old.cause != nil { // the recipients came from the slots file
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
	t.place, t.replacedKey = old.place(), old.id
	if t.place == placeUnread {
		return nil
	}
	cfg := t.cfg
	cfg.anySigner = true
	v, r, err := openUnder(ctx, cfg, t.paths, &unlocked{key: old.key, source: old.source})
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
