package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// sheet is the path of a signer sheet that is to be written; "" for none.
type sheet string

// newSheet checks that the file can be created, before anything is changed.
func newSheet(path string) (sheet, error) {
	if path == "" {
		return "", nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(abs); err == nil {
		return "", fmt.Errorf("%w: %q", vault.ErrFileExists, abs)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if info, err := os.Stat(filepath.Dir(abs)); err != nil || !info.IsDir() {
		return "", fmt.Errorf("%w: there is no directory %q", vault.ErrInvalid, filepath.Dir(abs))
	}
	return sheet(abs), nil
}

// write writes the sheet, and records that in the vault.
func (s sheet) write(ctx context.Context, a *app, v *vault.Vault) error {
	if s == "" {
		return nil
	}
	m, slots, err := metaAndSlots(ctx, v)
	if err != nil {
		return err
	}
	if err := vault.CreateFile(string(s), vault.SignerSheet(m, slots)); err != nil {
		return err
	}
	if err := v.RecordSheet(ctx); err != nil {
		return err
	}
	a.ui.info("The signer sheet is in %s.", string(s))
	return nil
}
