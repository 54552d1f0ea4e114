package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// Rehearsal is a restore that is tried out.
type Rehearsal struct {
	// Fill is as in [RestoreOptions].
	Fill func(ctx context.Context, tx *Tx) (Backup, error)
	// Identities open the backup. If one of them also opens the restored vault, that is tried.
	Identities []age.Identity
	// Use is called with the restored vault. opener is the slot that an identity opened, or nil.
	Use func(ctx context.Context, restored *Vault, opener *Slot) error
}

// Rehearse makes a vault from a backup as [Restore] does, opens it, checks everything in it,
// and removes it. The vault is in a directory of its own beside this one, under a key that
// is stored nowhere but in the slots inside that vault. Nothing else is changed, also not in the
// keyring.
//
// A kill leaves the directory, which nobody can read. The next Rehearse removes it. One runs at
// a time: others wait, up to [Config.Wait], and then return [ErrLocked]. Other errors are those
// of Fill, of Use and of [Restore].
func (v *Vault) Rehearse(ctx context.Context, r Rehearsal) error {
	if err := v.changeable(); err != nil {
		return err
	}
	lock := durable.NewLock(v.paths.rehearsalLock())
	if err := take(ctx, v.cfg, lock, lock.Exclusive); err != nil {
		return err
	}
	defer lock.Unlock()
	if err := v.paths.removeRehearsal(v.cfg.fs()); err != nil {
		return fmt.Errorf("remove what an interrupted drill left: %w", err)
	}
	if err := os.Mkdir(v.paths.rehearsal, 0o700); err != nil {
		return fmt.Errorf("make a directory for the drill: %w", err)
	}
	err := v.rehearse(ctx, r)
	if e := v.paths.removeRehearsal(v.cfg.fs()); e != nil && err == nil {
		err = fmt.Errorf("remove the vault of the drill: %w", e)
	}
	return err
}

// rehearse makes, opens and checks the vault. The caller removes it.
func (v *Vault) rehearse(ctx context.Context, r Rehearsal) error {
	p, err := newVaultPaths(filepath.Join(v.paths.rehearsal, rehearsalName))
	if err != nil {
		return err
	}
	cfg := v.cfg
	cfg.Path, cfg.Identities, cfg.Keyring, cfg.Logger, cfg.AcceptRollback = p.db, r.Identities, nil, nil, false
	t := newTransition(cfg, p, rootkey.Generate(), false)
	defer t.key.Wipe()
	t.fill = func(ctx context.Context, tx *Tx) (Event, error) {
		event, _, err := t.fillFrom(ctx, tx, r.Fill, oldVault{})
		return event, err
	}
	if err := t.emptyFresh(); err != nil {
		return err
	}
	if err := t.buildAt(ctx, t.paths.fresh); err != nil {
		return fmt.Errorf("build the database: %w", err)
	}
	if err := t.commit(); err != nil {
		return err
	}
	opener, err := t.openedBy(ctx, r.Identities)
	if err != nil {
		return err
	}
	restored, err := t.openRehearsal(ctx)
	if err != nil {
		return fmt.Errorf("open the restored vault: %w", err)
	}
	defer restored.Close()
	for _, f := range restored.examineContent(ctx) {
		if f.Status == FindingFail {
			return fmt.Errorf("check the restored vault: %s: %w", f.Check, f.Err)
		}
	}
	return r.Use(ctx, restored, opener)
}

// openedBy tries the identities on the slots of the new vault. It returns the slot that one of
// them opens, or nil. If that slot does not hold the new key, the error matches [ErrDamaged].
func (t *transition) openedBy(ctx context.Context, identities []age.Identity) (*Slot, error) {
	slots := t.slots
	u, err := identity.Await(ctx, func() (unlocked, error) { // a plugin may hang
		key, by, err := unwrapAny(slots, identities)
		return unlocked{key: key, opener: by}, err
	})
	if errors.Is(err, ErrWrongKey) {
		return nil, nil // it opens the backup, and is no unlock method of the vault
	}
	if err != nil {
		return nil, err
	}
	defer u.key.Wipe()
	if *u.key != *t.key {
		return nil, fmt.Errorf("%w: slot %s of the restored vault holds another key", ErrDamaged, u.opener.slot.ID)
	}
	return &u.opener.slot, nil
}

// openRehearsal opens the new vault as every other one, with the key that made it.
func (t *transition) openRehearsal(ctx context.Context) (*Vault, error) {
	cfg := t.cfg
	// Nobody but this process can have made it, so nobody needs to vouch for its signer.
	cfg.anySigner = true
	v, r, err := openUnder(ctx, cfg, t.paths, &unlocked{key: t.key, source: FromIdentity})
	if err != nil {
		return nil, err
	}
	if err := r.meta.checkBinding(t.key.Check()); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}
