package vault

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age/plugin"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// RestoreOptions says from what a new vault is made, and how.
type RestoreOptions struct {
	// Fill writes the rows of the new database and returns the rest of the backup. When it
	// returns nil, it has verified everything. If it returns an error, nothing changes.
	Fill func(ctx context.Context, tx *Tx) (Backup, error)
	// NoKeyring keeps the new key out of cfg.Keyring.
	NoKeyring bool
	// Replace allows a vault at the path. That vault is set aside.
	Replace bool
	// DryRun does everything up to the point where the slots file, the keyring or the vault
	// in place would be changed. The new database is built, under a key that is thrown away,
	// and removed again. The result describes the vault that a restore would make, which
	// would have another id, key and signer.
	DryRun bool
	// ConfirmUnproven is asked if the vault in place does not open, or if nothing vouches for
	// it, so its recipients are not proven. An error ends the restore. Nil also ends it. No
	// lock is held while it runs.
	ConfirmUnproven func(context.Context, UnprovenVault) error
}

// Backup is what a backup contains besides its rows.
type Backup struct {
	Slots         []Slot
	OriginVaultID string
	OriginSigner  string // a line as in authorized_keys
	Detail        string // for the audit log: which backup it is
}

// RestoredVault describes a vault that [Restore] made.
type RestoredVault struct {
	Created
	Aside   string // path of the replaced vault, or ""
	LeftOut []Slot // recipients of the backup that the replaced vault did not have
}

// Restore makes a new vault at cfg.Path from a backup. The new vault has its own id, key and
// signing key, and the backup's recipients. If there is a vault in place, it is refused with
// [ErrExists], or replaced and set aside. In that case, recipients that it no longer had are
// left out.
//
// Other errors are those of [Create], of [Open] and of Fill. After any of them the vault in
// place is unchanged.
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
	t := newTransition(cfg, p, rootkey.Generate(), cfg.Keyring != nil && !opts.NoKeyring)
	if opts.DryRun {
		defer t.key.Wipe()
		removeDirs, err := removeNewDirs(p.dir)
		if err != nil {
			return RestoredVault{}, err
		}
		defer removeDirs()
	}
	if err := t.preparePlace(ctx); err != nil {
		return RestoredVault{}, err
	}
	// What may ask a person or a keyring is done before the lock is taken.
	old, err := examineOldVault(ctx, cfg, p)
	if err != nil {
		return RestoredVault{}, err
	}
	defer old.wipe()
	if err := old.confirm(ctx, opts.ConfirmUnproven); err != nil {
		return RestoredVault{}, err
	}
	leftOut, err := t.restoreOver(ctx, &old, opts)
	if err != nil {
		return RestoredVault{}, err
	}
	return RestoredVault{Created: t.created(), Aside: t.aside, LeftOut: leftOut}, nil
}

// restoreOver puts the new vault in the place of the old one, or of none. It returns the
// recipients that were left out.
func (t *transition) restoreOver(ctx context.Context, old *oldVault, opts RestoreOptions) (leftOut []Slot, err error) {
	if old.exists || !opts.DryRun { // a dry run leaves no lock files where there is no vault
		release, err := takeAlone(ctx, t.cfg, t.paths)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	t.fill = func(ctx context.Context, tx *Tx) (event Event, err error) {
		event, leftOut, err = t.fillFrom(ctx, tx, opts.Fill, *old)
		return event, err
	}
	if opts.DryRun {
		err := t.tryOut(ctx, *old)
		return leftOut, err
	}
	if err := t.clearPlace(ctx, old, opts.Replace); err != nil {
		return nil, err
	}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	t.setReplacedAside(ctx)
	return leftOut, nil
}

// clearPlace closes the vault in place, or removes what an interrupted run left. The
// exclusive lock is held.
func (t *transition) clearPlace(ctx context.Context, old *oldVault, replace bool) error {
	exists, err := durable.Exists(t.paths.db)
	switch {
	case err != nil:
		return err
	case exists && !replace:
		return fmt.Errorf("%q %w", t.paths.db, ErrExists)
	case exists != old.exists:
		return errChangedMeanwhile
	case exists:
		return t.closeOldVault(ctx, old)
	}
	_, lost, err := clearInterruptedRun(ctx, t.cfg, t.paths, t.meta.Keyring)
	if lost { // the slots file is copied aside once the backup has been read and verified
		t.place = placeLost
	}
	return err
}

// fillFrom writes the rows of a backup. Of its recipients it leaves out those that the old
// vault no longer had.
func (t *transition) fillFrom(ctx context.Context, tx *Tx, fill func(context.Context, *Tx) (Backup, error), old oldVault) (event Event, leftOut []Slot, err error) {
	b, err := fill(ctx, tx)
	if err != nil {
		return Event{}, nil, err
	}
	// Identities under a passphrase are open by now.
	t.vouchKeys = vouchKeys(t.cfg.Identities)
	t.meta.OriginVaultID, t.meta.OriginSigner = b.OriginVaultID, b.OriginSigner
	t.slots = b.Slots
	if old.slots != nil {
		if t.slots, leftOut, err = stillThere(b.Slots, old.slots); err != nil {
			return Event{}, nil, err
		}
	}
	if t.meta.Class, err = classOfSlots(ctx, t.slots, t.cfg.Plugins); err != nil {
		return Event{}, nil, err
	}
	detail := fmt.Sprintf("from vault %s, %s", b.OriginVaultID, b.Detail)
	if len(leftOut) > 0 {
		detail += fmt.Sprintf(", %d recipients left out", len(leftOut))
	}
	return Event{Action: ActionRestore, Subject: t.meta.VaultID, Detail: detail}, leftOut, nil
}

// setReplacedAside marks the anchor of the replaced vault in the keyring. It is needed if the
// new vault does not use the keyring, because then settling does not mark it.
func (t *transition) setReplacedAside(ctx context.Context) {
	if t.replacedVault == "" || t.meta.Keyring || t.cfg.Keyring == nil {
		return
	}
	if err := setAnchorAside(context.WithoutCancel(ctx), t.cfg.Keyring, t.replacedVault); err != nil {
		t.cfg.log().Warn("the keyring could not record that the vault was replaced: the old files could be put back unnoticed", "vault_id", t.replacedVault, "error", err)
	}
}

// stillThere divides a backup's slots into those whose recipients the current vault has, and
// the others. A reader who was removed must not come back.
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
		return nil, nil, fmt.Errorf("%w: the vault in place has none of the backup's recovery and recipient keys, and a removed key must not come back: restore to another path", ErrInvalid)
	}
	return kept, leftOut, nil
}

// ValidateSlots checks that a vault may have these slots: one is a recovery or recipient slot, none
// comes twice, and the recipients can be parsed and have one class. The error matches
// [ErrInvalid] or [ErrPlugin].
func ValidateSlots(ctx context.Context, slots []Slot, ui *plugin.ClientUI) error {
	seen := map[string]bool{}
	for _, s := range slots {
		if seen[s.ID] || seen[s.Recipient] {
			return fmt.Errorf("%w: slot %s comes twice", ErrInvalid, s.ID)
		}
		seen[s.ID], seen[s.Recipient] = true, true
	}
	if !slices.ContainsFunc(slots, Slot.Durable) {
		return fmt.Errorf("%w: there is no recovery or recipient slot, but a vault needs one", ErrInvalid)
	}
	_, err := classOfSlots(ctx, slots, ui)
	return err
}

// classOfSlots returns the class of the slots' recipients, which must all have the same one. It
// works on a copy, because a plugin that hangs is abandoned while it uses it.
func classOfSlots(ctx context.Context, slots []Slot, ui *plugin.ClientUI) (identity.Class, error) {
	slots = slices.Clone(slots)
	if len(slots) == 0 {
		return "", fmt.Errorf("%w: the backup has no recipients, but a vault needs one", ErrInvalid)
	}
	return identity.Await(ctx, func() (identity.Class, error) {
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
	})
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
