package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// RestoreOptions says what a new vault is made of.
type RestoreOptions struct {
	// Fill writes the rows of the new database, and tells the rest. It has
	// verified everything when it returns nil; on an error nothing changes.
	Fill func(ctx context.Context, tx *Tx) (Restored, error)
	// NoKeyring keeps the new key out of cfg.Keyring.
	NoKeyring bool
	// Replace allows a vault at the path: it is set aside.
	Replace bool
	// ReplaceUnread is asked when the vault in place cannot be opened, with the
	// reason, whether to set it aside all the same. Nil: no.
	ReplaceUnread func(cause error) bool
}

// Restored is what a backup says besides its rows.
type Restored struct {
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
	p, err := newPaths(cfg.Path)
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
	lock := durable.NewLock(p.lock)
	if err := take(ctx, cfg, lock, lock.Exclusive); err != nil {
		return RestoredVault{}, err
	}
	defer lock.Unlock()

	var inPlace []Slot // nil: not known
	exists, err := durable.Exists(p.db)
	switch {
	case err != nil:
		return RestoredVault{}, err
	case exists && !opts.Replace:
		return RestoredVault{}, fmt.Errorf("%q %w", p.db, ErrExists)
	case exists:
		if inPlace, err = t.closeInPlace(ctx, opts.ReplaceUnread); err != nil {
			return RestoredVault{}, err
		}
	default:
		if _, t.missing, err = clearWay(ctx, cfg, p, true, t.meta.Keyring); err != nil {
			return RestoredVault{}, err
		}
	}

	var leftOut []Slot
	t.fill = func(ctx context.Context, tx *Tx) error {
		r, err := opts.Fill(ctx, tx)
		if err != nil {
			return err
		}
		t.meta.OriginVaultID, t.meta.OriginSigner = r.OriginVaultID, r.OriginSigner
		t.slots, leftOut = r.Slots, nil
		if inPlace != nil {
			if t.slots, leftOut, err = stillThere(r.Slots, inPlace); err != nil {
				return err
			}
		}
		if t.meta.Class, err = cfg.classOf(t.slots); err != nil {
			return err
		}
		detail := fmt.Sprintf("from vault %s, %s", r.OriginVaultID, r.Detail)
		if len(leftOut) > 0 {
			detail += fmt.Sprintf(", %d recipients left out", len(leftOut))
		}
		return tx.Audit(ctx, Event{Action: "vault.restore", Subject: t.meta.VaultID, Detail: detail})
	}
	if err := t.run(ctx); err != nil {
		return RestoredVault{}, err
	}
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

// closeInPlace is step 1: it opens and settles the vault in place, folds its log
// in and closes it. It returns its slots, or nil when it could not be opened and
// that was accepted.
func (t *transition) closeInPlace(ctx context.Context, accept func(error) bool) ([]Slot, error) {
	slots, cause := t.readInPlace(ctx)
	if cause == nil {
		return slots, nil
	}
	if !errors.Is(cause, ErrDamaged) && !errors.Is(cause, ErrPlaintext) && !errors.Is(cause, ErrWrongKey) && !errors.Is(cause, ErrNoWayIn) &&
		!errors.Is(cause, ErrUnknownKeyID) && !errors.Is(cause, keyring.ErrUnavailable) || ctx.Err() != nil {
		return nil, cause // in use, newer, or of passing cause: not unreadable
	}
	if accept == nil || !accept(cause) {
		return nil, fmt.Errorf("the vault in place cannot be opened, so it is not replaced: %w", cause)
	}
	id, _ := readKeyID(t.paths.db) // any file: only its entry is looked up by it
	t.inPlace, t.replaces, t.unread = &id, true, true
	return nil, nil
}

func (t *transition) readInPlace(ctx context.Context) ([]Slot, error) {
	v, _, err := openUnder(ctx, t.cfg, t.paths)
	if len(t.cfg.Identities) > 0 && (errors.Is(err, ErrWrongKey) || errors.Is(err, ErrNoWayIn) || errors.Is(err, ErrUnknownKeyID)) {
		// The identities were given for the backup, and the vault in place may
		// have never known them.
		cfg := t.cfg
		cfg.Identities = nil
		if other, _, e := openUnder(ctx, cfg, t.paths); e == nil {
			v, err = other, nil
		}
	}
	if err != nil {
		return nil, err
	}
	_, slots, err := v.metaAndSlots(ctx)
	if err == nil {
		err = v.settleIfNeeded(ctx)
	}
	if err == nil {
		err = v.changeable()
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	id := v.key.id
	t.inPlace, t.replaces = &id, true
	return slots, v.quiesce(ctx)
}

// stillThere divides a backup's slots into those whose recipients the vault in
// place has, and the others: a reader who was removed must not come back.
func stillThere(backup, inPlace []Slot) (kept, leftOut []Slot, err error) {
	has := map[string]bool{}
	for _, s := range inPlace {
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
func (c Config) classOf(slots []Slot) (Class, error) {
	if len(slots) == 0 {
		return "", fmt.Errorf("%w: the backup has no recipients, and a vault needs one", ErrInvalid)
	}
	r, err := ParseRecipient(slots[0].Recipient, c.Plugins)
	if err != nil {
		return "", err
	}
	class, err := classify(r)
	if err != nil {
		return "", err
	}
	for _, s := range slots[1:] {
		if err := c.checkClass(s.Recipient, class); err != nil {
			return "", err
		}
	}
	return class, nil
}
