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

// offerAside offers to put a plaintext registry aside whose nodes were all imported into the vault
// at db, where it stands at the default path of the vault: that becomes a link to the vault. It
// returns where the registry is then.
func (a *app) offerAside(ctx context.Context, set registry.ImportSet, source, db string) (at string, err error) {
	if !a.interactive() || a.json || a.yes || !blocksDefault(source, db) {
		return source, nil
	}
	yes, err := a.ui.askYes(ctx, fmt.Sprintf("%[1]s is where the vault is looked for by default. Put it aside as %[2]s,\nand make %[1]s a link to the vault? Stop every program that uses it first.", source, filepath.Base(source)+".plaintext"))
	if err != nil || !yes {
		return source, err
	}
	at, err = registry.PutLegacyAside(ctx, vault.Config{Path: db}, source, set)
	if err == nil {
		a.ui.info("%s is now a link to the vault, %s: --db is not needed for it.", source, filepath.Base(db))
		return at, nil
	}
	hint := fmt.Sprintf("Nothing was moved. Use the vault by its own path: --db %s", wire.Quote(db))
	switch {
	case at != source:
		hint = fmt.Sprintf("The registry in plaintext is in %s now. Look at what is at %s before you remove anything.", at, source)
	case errors.Is(err, vault.ErrLocked), errors.Is(err, registry.ErrConflict):
		hint = "Nothing was moved. Stop the program that uses the file, and import it again with --replace."
	}
	return at, withHint(fmt.Errorf("%w: the nodes are imported, but %w", errPartial, err), "%s", hint)
}

// blocksDefault reports whether a file is at the default path of the vault, and the vault at db
// is in the same directory.
func blocksDefault(file, db string) bool {
	path, isDefault := atDefault(file)
	info, err := os.Lstat(path)
	if !isDefault || err != nil || !info.Mode().IsRegular() {
		return false
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	return err == nil && dir == filepath.Dir(db) && filepath.Join(dir, filepath.Base(path)) != db
}

// atDefault makes a path absolute, and reports whether it is the default path of the vault.
func atDefault(file string) (path string, ok bool) {
	home, err := os.UserHomeDir()
	if err != nil {
		return file, false
	}
	path, err = filepath.Abs(file)
	return path, err == nil && path == vault.DefaultPath(home)
}

// sayPlaintext says that an imported registry still exists. A command that removes it is only
// named where no link to the vault can ever stand: shred follows links.
func (a *app) sayPlaintext(path string) {
	_, isDefault := atDefault(path)
	info, err := os.Lstat(path)
	switch {
	case err != nil || !info.Mode().IsRegular():
	case isDefault:
		a.ui.info("%s still exists, in plaintext. Remove it once you have checked the import and made a backup.", path)
	default:
		a.ui.info("%s still exists, in plaintext. After you have checked the import and made a backup,\nremove it: shred -u %s", path, wire.Quote(path))
	}
}

// plaintextBeside returns the registries beside a vault that an import has put aside, or has begun
// to.
func plaintextBeside(db string) (files []string) {
	for _, pattern := range []string{"*.plaintext", "*.plaintext-*", "*.link"} {
		matches, _ := filepath.Glob(filepath.Join(filepath.Dir(db), pattern))
		for _, path := range matches {
			if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
				files = append(files, path)
			}
		}
	}
	return files
}
