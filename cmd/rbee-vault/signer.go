package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// parseSigner parses --signer: a fingerprint, or the file of a sheet that names one.
func parseSigner(s string) (string, error) {
	if strings.HasPrefix(s, "SHA256:") {
		return checkFingerprint(s)
	}
	if isSecret(s) {
		return "", fmt.Errorf("%w: --signer is a private key, and a fingerprint is needed", vault.ErrInvalid)
	}
	data, err := readSmallFile(s)
	if err != nil {
		return "", fmt.Errorf("%w: --signer is neither a fingerprint (SHA256:...) nor the file of a sheet: %v", vault.ErrInvalid, err)
	}
	defer clear(data) // a recovery sheet holds the identity too
	signer, err := vault.ParseSheet(data)
	if err != nil {
		return "", fmt.Errorf("--signer %q: %w", s, err)
	}
	return checkFingerprint(signer)
}

// checkFingerprint returns a text that has the form of a fingerprint.
func checkFingerprint(s string) (string, error) {
	if !strings.HasPrefix(s, "SHA256:") || len(s) != len("SHA256:")+43 {
		return "", fmt.Errorf("%w: a fingerprint is SHA256: and 43 characters", vault.ErrInvalid)
	}
	return s, nil
}

func readSmallFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return nil, fmt.Errorf("%w: %q is not a regular file of at most 64 KiB", vault.ErrInvalid, path)
	}
	return os.ReadFile(path)
}

// confirmSigner asks about a vault if nothing vouches for its signer. --yes does not
// answer this question.
func (a *app) confirmSigner(ctx context.Context, u vault.Unvouched) error {
	named := ""
	if len(u.Named) > 0 {
		named = fmt.Sprintf("    identity file   names vault %s\n", strings.Join(u.Named, ", vault "))
	}
	a.ui.say(`
Nothing vouches for the signer of this vault. Anybody who knows a public recipient
can make a vault that its identity opens. Compare the signer with your sheet.

    vault id        %s
    key id          %s
    signer          %s
%s`, u.VaultID, u.KeyID, u.Signer, wire.Clean(named))
	yes, err := a.ui.askYes(ctx, "Is it your vault?")
	if err == nil && !yes {
		err = fmt.Errorf("%w: you did not vouch for %s", vault.ErrUnvouched, u.Signer)
	}
	return err
}
