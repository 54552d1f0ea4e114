package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// sheet is the path of a page to print that is to be written; "" for none. Its ending says
// what is written: a text, or a picture of the page with a QR code.
type sheet string

// sheetWritten is what to do with the file of a recovery sheet.
const sheetWritten = `The recovery sheet is in %s. Print it, keep it in a safe, and delete the
file: whoever has it opens this vault and every backup of it.`

// newSheet checks that the file can be created, before anything is changed.
func newSheet(path string) (sheet, error) {
	if path == "" {
		return "", nil
	}
	if _, err := sheetEncoder(path); err != nil {
		return "", err
	}
	abs, err := checkNewFile(path)
	return sheet(abs), err
}

// checkNewFile checks that a file can be created at the path, and returns the absolute path.
func checkNewFile(path string) (string, error) {
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
	return abs, nil
}

// sheetEncoder returns what makes a file of that name from a page. nil: the page's text is the
// file.
func sheetEncoder(path string) (func(page) ([]byte, error), error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".txt", "":
		return nil, nil
	case ".pdf":
		return page.pdf, nil
	case ".png":
		return page.png, nil
	case ".svg":
		return page.svg, nil
	}
	return nil, fmt.Errorf("%w: the name of a sheet ends in .txt, .pdf, .png or .svg", vault.ErrInvalid)
}

// encode returns the file with the page. groups is what stands beside the QR code, which
// holds all of them without a space. It wipes the text where that is not the file.
func (s sheet) encode(text []byte, groups []string) ([]byte, error) {
	encode, err := sheetEncoder(string(s))
	if encode == nil || err != nil {
		return text, err
	}
	defer clear(text)
	p, err := newPage(string(text), groups)
	if err != nil {
		return nil, err
	}
	return encode(p)
}

// recovery is the encodeIdentity of a recovery sheet.
func (s sheet) recovery(_ context.Context, i vault.NewIdentity) ([]byte, error) {
	return s.encode(i.Sheet(), identity.Groups(i.Identity))
}

// write writes a sheet that names the vault's signer, and records that in the vault.
func (s sheet) write(ctx context.Context, a *app, v *vault.Vault) error {
	if s == "" {
		return nil
	}
	m, slots, err := metaAndSlots(ctx, v)
	if err != nil {
		return err
	}
	data, err := s.encode(vault.SignerSheet(m, slots), []string{m.SignerFingerprint()})
	if err != nil {
		return err
	}
	if err := vault.CreateFile(string(s), data); err != nil {
		return err
	}
	if err := v.RecordSheet(ctx); err != nil {
		return err
	}
	a.ui.info("The signer sheet is in %s.", string(s))
	return nil
}
