package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// plaintextFile is a plaintext registry at the path of the vault that is to be made.
type plaintextFile struct {
	path string
	set  registry.ImportSet // what it has
}

// sideFiles are the files that SQLite keeps beside a database, by the ends of their names.
var sideFiles = []string{"-wal", "-shm", "-journal"}

// aside is where the file goes.
func (p *plaintextFile) aside() string { return p.path + ".plaintext" }

// findPlaintext reads the plaintext registry at the path, if there is one and the operator
// wants it imported; else it returns nil. Nothing is changed.
func (o initOptions) findPlaintext(ctx context.Context, a *app, path string) (*plaintextFile, error) {
	if !o.fromPlaintext && (!a.interactive() || a.json) {
		return nil, nil
	}
	home, _ := os.UserHomeDir()
	set, err := registry.ReadLegacy(ctx, path, home)
	if err != nil && !o.fromPlaintext { // Create says what is there
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--from-plaintext: %w", err)
	}
	p := &plaintextFile{path, set}
	if holders := durable.Holders(path); len(holders) > 0 {
		return nil, withHint(fmt.Errorf("%q is in use by %s: %w", path, holders[0], vault.ErrLocked), "Stop that program first: what it writes would not come into the vault.")
	}
	if !o.fromPlaintext {
		yes, err := a.ui.askYes(ctx, fmt.Sprintf("%s is a registry in plaintext, with %d nodes. Put it aside as %s, make the vault in its place, and import it?", path, len(set.Nodes), p.aside()))
		if err != nil || !yes {
			return nil, err
		}
	}
	return p, nil
}

// putAside gives the file and those beside it another name. The copies that a kill leaves are
// the same files under both names.
func (p *plaintextFile) putAside() error { return moveDatabase(p.path, p.aside()) }

// putBack undoes putAside, where no vault was made.
func (p *plaintextFile) putBack() error { return moveDatabase(p.aside(), p.path) }

// moveDatabase renames a database of SQLite. At every moment the files of one name are whole:
// the database never stands there without its log.
func moveDatabase(from, to string) error {
	var fsys durable.OS
	var side []string
	for _, end := range sideFiles {
		err := fsys.Link(from+end, to+end)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			side = append(side, from+end)
		}
	}
	if err := fsys.Link(from, to); err != nil {
		return err
	}
	for _, path := range append([]string{from}, side...) {
		if err := durable.RemoveIfExists(fsys, path); err != nil {
			return err
		}
	}
	return os.Chmod(to, 0o600)
}

// importAside imports the file into the vault that was made in its place, if that opens here.
func (p *plaintextFile) importAside(ctx context.Context, a *app, opts vault.CreateOptions, signer string) error {
	if opts.NoKeyring && len(a.identities) == 0 && opts.RecoveryFile != "" {
		a.identities, a.offers = []string{opts.RecoveryFile}, nil
	}
	if opts.NoKeyring && len(a.identities) == 0 && os.Getenv("RBEE_VAULT_IDENTITY_FILE") == "" {
		a.ui.info("\nThe plaintext registry is in %[1]s. To import it: rbee-vault node import %[2]s --identity FILE --signer %[3]s", p.aside(), wire.Quote(p.aside()), vault.Fingerprint(signer))
		return nil
	}
	a.ui.info("")
	err := importNodes(ctx, a, importOptions{}, p.set, p.aside(), true)
	if err != nil && !errors.Is(err, errPartial) {
		return withHint(fmt.Errorf("the vault is made, and the plaintext registry is in %q, but: %w", p.aside(), err), "To import it: rbee-vault node import %s", wire.Quote(p.aside()))
	}
	return err
}
