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
		return "", fmt.Errorf("%w: --signer: what is given is a private key, where a fingerprint is needed", vault.ErrInvalid)
	}
	data, err := readSmallFile(s)
	if err != nil {
		return "", fmt.Errorf("%w: --signer: neither a fingerprint (SHA256:...) nor the file of a sheet: %v", vault.ErrInvalid, err)
	}
	defer clear(data) // a recovery sheet holds the identity too
	signer, err := vault.ParseSheet(data)
	if err != nil {
		return "", fmt.Errorf("--signer %q: %w", s, err)
	}
	return checkFingerprint(signer)
}

// checkFingerprint refuses what does not have the form of one.
func checkFingerprint(s string) (string, error) {
	if !strings.HasPrefix(s, "SHA256:") || len(s) != len("SHA256:")+43 {
		return "", fmt.Errorf("%w: a signer's fingerprint reads SHA256: and 43 characters", vault.ErrInvalid)
	}
	return s, nil
}

func readSmallFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 64<<10 {
		return nil, fmt.Errorf("%w: %q is not a short file", vault.ErrInvalid, path)
	}
	return os.ReadFile(path)
}

// confirmSigner asks about a vault whose signer nothing vouches for. --yes does not
// answer it.
func (a *app) confirmSigner(ctx context.Context, u vault.Unvouched) error {
	named := ""
	if len(u.Named) > 0 {
		named = fmt.Sprintf("    the file is of  vault %s\n", strings.Join(u.Named, ", vault "))
	}
	a.ui.say(`
Nothing vouches for the signer of this vault, and anybody who knows a public
recipient can make a vault that its identity opens. Compare it with your sheet.

    vault id        %s
    key id          %s
    signer          %s
%s`, u.VaultID, u.KeyID, u.Signer, wire.Clean(named))
	answer, err := a.ui.ask(ctx, "Is it your vault? [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return fmt.Errorf("%w: you did not vouch for %s", vault.ErrUnvouched, u.Signer)
	}
	return nil
}
