package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
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
	t := newTransition(cfg, p, false)
	defer t.key.wipe()
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
	defer u.key.wipe()
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
	if err := r.meta.checkBinding(t.key.check()); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// rehearsalLock is the lock of the one that has the directory.
func (p paths) rehearsalLock() string { return p.rehearsal + ".lock" }

// rehearsing reports whether a process tries a restore out.
func (p paths) rehearsing() bool {
	lock := durable.NewLock(p.rehearsalLock())
	free, err := lock.TryExclusive()
	if free {
		lock.Unlock()
	}
	return !free && err == nil
}

// rehearsalName is the name of the database in the directory of a rehearsal.
const rehearsalName = "beehives.db"

// rehearsalFiles lists what rehearsals made in their directory, and the directory last. What
// somebody else put there is not listed: then the directory cannot be removed.
func (p paths) rehearsalFiles() []string {
	// A link could lead to a vault. What is not a directory, no rehearsal made.
	if info, err := os.Lstat(p.rehearsal); err != nil || !info.IsDir() {
		return nil
	}
	entries, err := os.ReadDir(p.rehearsal)
	if err != nil {
		return nil
	}
	var files []string
	for _, e := range entries {
		if path := filepath.Join(p.rehearsal, e.Name()); strings.HasPrefix(e.Name(), rehearsalName) {
			files = append(files, path)
		}
	}
	return append(files, p.rehearsal)
}

// removeRehearsal removes the directory of a rehearsal. The caller holds its lock.
func (p paths) removeRehearsal(fsys durable.FS) error {
	files := p.rehearsalFiles()
	for _, path := range files {
		if err := durable.RemoveIfExists(fsys, path); err != nil {
			return err
		}
	}
	if files == nil {
		return nil
	}
	return fsys.SyncDir(p.dir)
}
