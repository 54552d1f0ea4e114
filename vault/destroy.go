package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// Destroyed lists what was removed and what is left.
type Destroyed struct {
	Path     string   // of the database, without links
	Files    []string // removed
	Accounts []string // keyring items that were deleted
	Left     []string // vaults of their own beside it
	// LeftAccounts are keyring items that may belong to the vault. They are left, because they
	// may also belong to another vault.
	LeftAccounts []string
}

// Destroy removes the vault at cfg.Path, or a file that was set aside, with its keyring items.
// Without its key the rest cannot be read. Destroy needs no key.
//
// Copies that a migration set aside under the vault's key are removed too. A vault that a
// restore set aside is a vault of its own, and stays. Backups stay, and their recipients can
// read them. The lock files stay; they are empty. A copy of a vault in another place has the
// same keyring items as the original, so destroying one of them takes the items from both.
//
// The keyring items are deleted first. If the vault has one and the keyring does not answer,
// the error of the keyring is returned, with what was removed by then: nothing, or some items.
// Other errors: [ErrNoVault], [ErrPlaintext], [ErrInsecure], [ErrAlreadyOpen], [ErrLocked], and
// [ErrInvalid] for a file that nothing shows to be a vault. What an interrupted run left, the
// next run removes.
func Destroy(ctx context.Context, cfg Config) (Destroyed, error) {
	p, _, err := planDestruction(ctx, cfg) // before a lock file is created
	if err != nil {
		return Destroyed{}, err
	}
	release, err := takeAlone(ctx, cfg, p)
	if err != nil {
		return Destroyed{}, err
	}
	defer release()
	r, err := planRemoval(ctx, cfg, p)
	if err != nil {
		return Destroyed{}, err
	}
	done := Destroyed{Path: p.db, LeftAccounts: r.leftAccounts, Left: r.left}
	for _, account := range r.accounts {
		if err := cfg.Keyring.Delete(ctx, account); err != nil {
			return done, fmt.Errorf("delete the vault's key from the keyring: %w", err)
		}
		done.Accounts = append(done.Accounts, account)
	}
	fsys := cfg.fs()
	for _, path := range r.files {
		if err := durable.RemoveIfExists(fsys, path); err != nil {
			return done, fmt.Errorf("remove %q: %w", path, err)
		}
		done.Files = append(done.Files, path)
	}
	if err := fsys.SyncDir(p.dir); err != nil {
		return done, fmt.Errorf("flush directory: %w", err)
	}
	return done, nil
}

// links returns the symbolic links beside the database that would name nothing without it.
func (p paths) links() (links []string) {
	entries, _ := os.ReadDir(p.dir)
	for _, e := range entries {
		path := filepath.Join(p.dir, e.Name())
		if real, err := filepath.EvalSymlinks(path); err == nil && real == p.db && path != p.db {
			links = append(links, path)
		}
	}
	return links
}

// PlanDestruction returns what [Destroy] would remove. Errors are those of Destroy.
func PlanDestruction(ctx context.Context, cfg Config) (Destroyed, error) {
	p, r, err := planDestruction(ctx, cfg)
	return Destroyed{Path: p.db, Files: r.files, Accounts: r.accounts, Left: r.left, LeftAccounts: r.leftAccounts}, err
}

func planDestruction(ctx context.Context, cfg Config) (paths, removal, error) {
	p, err := newPaths(cfg.Path)
	if err == nil {
		err = p.checkPrivate()
	}
	if err != nil {
		return paths{}, removal{}, err
	}
	r, err := planRemoval(ctx, cfg, p)
	return p, r, err
}

// removal is what belongs to this vault and to no other: files and keyring items, each in the
// order in which they are removed.
type removal struct {
	files        []string
	accounts     []string
	leftAccounts []string
	left         []string // vaults of their own beside it
}

func planRemoval(ctx context.Context, cfg Config, p paths) (removal, error) {
	file, err := readSlotsFile(p.slots)
	if err != nil {
		return removal{}, err
	}
	id, err := peekKeyID(p.db)
	gone := errors.Is(err, fs.ErrNotExist)
	// The name of a file that was set aside shows what it is, even if its content is damaged.
	named := p.setAside()
	switch {
	case errors.Is(err, ErrPlaintext) && !named, errors.Is(err, ErrAlreadyOpen):
		return removal{}, err
	case gone && !file.present():
		return removal{}, fmt.Errorf("%w at %q", ErrNoVault, p.db)
	case err != nil && !file.present() && !named: // neither the file nor anything beside it shows what it was
		return removal{}, err
	}
	var r removal
	var known *KeyID
	if err == nil {
		known = &id
	}
	if err := r.planAccounts(ctx, cfg, p, file, known, gone); err != nil {
		return removal{}, err
	}
	if !file.present() && len(r.accounts) == 0 && !named {
		return removal{}, fmt.Errorf("%w: nothing shows that %q is a vault: it has no slots file, and no key in the keyring; to remove it anyway: rm %s", ErrInvalid, p.db, wire.Quote(p.db))
	}
	if len(r.accounts) > 0 && cfg.Keyring == nil {
		return removal{}, fmt.Errorf("%w: the vault's key is in a keyring", keyring.ErrUnavailable)
	}
	if !p.setAside() {
		r.files = append(r.files, p.rehearsalFiles()...)
	}
	// The database and its slots file come last: while either exists, a rerun can continue.
	files, kept := p.leftovers(file)
	r.files, r.left = append(r.files, files...), append(p.of(replacedVault), kept...)
	for _, path := range p.of(foreignSlots) {
		if copied, err := readSlotsFile(path); err == nil && file.sharesVault(copied) {
			r.files = append(r.files, path)
		}
	}
	if known != nil && !p.setAside() {
		r.files = append(r.files, p.beforeCopies(id)...)
	}
	r.files = append(append(append(r.files, sqlcipher.SideFiles(p.db)...), p.links()...), p.db, p.slots)
	r.files = slices.DeleteFunc(r.files, func(path string) bool {
		ok, err := durable.Exists(path)
		return err == nil && !ok
	})
	return r, nil
}

// planAccounts finds the keyring items that belong to this vault and to no other. If the slots
// file has no entry for the database, it may be another vault's, as when settling: then no item
// that it names is deleted.
func (r *removal) planAccounts(ctx context.Context, cfg Config, p paths, file slotsFile, id *KeyID, gone bool) error {
	others, unread, err := p.siblings()
	if err != nil {
		return err
	}
	var own *entry
	if id != nil {
		own = file.find(*id)
	}
	if id != nil && own == nil && cfg.Keyring != nil {
		// There is no entry for the database, so the keyring must show whether it is a vault.
		value, err := cfg.Keyring.Get(ctx, id.String())
		if err != nil && !errors.Is(err, keyring.ErrNotFound) {
			return err
		}
		if k, err := rootkey.ParseLine([]byte(value)); err == nil && k.ID() == *id {
			k.Wipe()
			r.account(id.String(), unread || slices.ContainsFunc(others, func(o sibling) bool { return o.id == *id }))
		}
	}
	for _, e := range file.entries {
		if !e.Keyring || e.State == stateReplaced {
			continue // it has no item, or a file set aside needs it
		}
		foreign := !gone && own == nil || own != nil && e.State != statePending && e.VaultID != own.VaultID
		shared := func(same func(o sibling) bool) bool { return foreign || unread || slices.ContainsFunc(others, same) }
		r.account(anchorAccount(e.VaultID), shared(func(o sibling) bool { return o.vaultID == "" || o.vaultID == e.VaultID }))
		r.account(e.KeyID.String(), shared(func(o sibling) bool { return o.id == e.KeyID }))
	}
	return nil
}

// account lists an item as one to delete or one to leave.
func (r *removal) account(name string, leave bool) {
	list := &r.accounts
	if leave {
		list = &r.leftAccounts
	}
	if !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}

// sharesVault reports whether the copy of a slots file has an entry of the same vault.
func (f slotsFile) sharesVault(copied slotsFile) bool {
	return slices.ContainsFunc(copied.entries, func(c entry) bool {
		return slices.ContainsFunc(f.entries, func(e entry) bool { return e.VaultID == c.VaultID && e.State != stateReplaced })
	})
}

// sibling is another database of the same name: the one in place, or one that was set aside.
type sibling struct {
	id      KeyID
	vaultID string // "" if its slots file does not show it
}

// siblings lists them. unread reports that one of them cannot be read, so it may have any key.
// The copies that migrations made are removed with the database in place, so they are not
// listed for it.
func (p paths) siblings() (found []sibling, unread bool, err error) {
	base := p
	if p.setAside() {
		base.db, _ = reserved(p.db)
	}
	for _, path := range append([]string{base.db}, base.asides()...) {
		if _, kind := reserved(path); path == p.db || !p.setAside() && kind == beforeDatabase {
			continue
		}
		id, err := peekKeyID(path)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrPlaintext):
			continue
		case errors.Is(err, ErrAlreadyOpen):
			return nil, false, fmt.Errorf("%q: %w", path, err)
		case err != nil:
			unread = true
			continue
		}
		s := sibling{id: id}
		if file, err := readSlotsFile(path + ".slots"); err == nil {
			if e := file.find(id); e != nil {
				s.vaultID = e.VaultID
			}
		}
		found = append(found, s)
	}
	return found, unread, nil
}

// asides lists the databases of this name that were set aside. p is the database in place.
func (p paths) asides() []string { return append(p.of(replacedVault), p.of(beforeDatabase)...) }
