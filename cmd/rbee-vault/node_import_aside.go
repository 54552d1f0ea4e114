package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// offerAside offers to put a plaintext registry aside whose nodes were all imported, where it
// stands at the default path of the vault, and to have that path stand for the vault. It returns
// where the registry is then.
func (a *app) offerAside(ctx context.Context, r *registry.Registry, set registry.ImportSet, source string) (string, error) {
	if !a.interactive() || a.json || a.yes || !blocksDefault(source, r.Vault().Path()) {
		return source, nil
	}
	yes, err := a.ui.askYes(ctx, fmt.Sprintf("%[1]s is where the vault is looked for by default. Put it aside as %[2]s,\nand have %[1]s stand for the vault? Stop every program that uses it first.", source, filepath.Base(source)+".plaintext"))
	if err != nil || !yes {
		return source, err
	}
	aside, err := r.PutLegacyAside(ctx, source, set)
	switch {
	case errors.Is(err, vault.ErrLocked), errors.Is(err, registry.ErrConflict):
		return source, withHint(fmt.Errorf("%w: the nodes are imported, but %w", errPartial, err), "Nothing was moved. Stop the program that has the file open, and import it again.")
	case err != nil:
		return source, withHint(fmt.Errorf("%w: the nodes are imported, but %w", errPartial, err), "Nothing was moved. Use the vault by its own path: --db %s", wire.Quote(r.Vault().Path()))
	}
	a.ui.info("%s is now a link to the vault, %s: --db is not needed for it.", source, filepath.Base(r.Vault().Path()))
	return aside, nil
}

// blocksDefault reports whether a file is at the default path of the vault, and the vault is in
// the same directory.
func blocksDefault(file, db string) bool {
	home, err := os.UserHomeDir()
	if err != nil {
		return false
	}
	path, err := filepath.Abs(file)
	if err != nil || path != vault.DefaultPath(home) {
		return false
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return err == nil && dir == filepath.Dir(db) && filepath.Join(dir, filepath.Base(path)) != db
}
