package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
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

// readOptions are the flags of whoever reads a backup.
type readOptions struct {
	signers         []string
	acceptSuccessor bool
}

func (o *readOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&o.signers, "signer", nil, "trust the backup's signer with this `FINGERPRINT` (SHA256:..., from the sheet; or the sheet's file); repeatable")
	cmd.Flags().BoolVar(&o.acceptSuccessor, "accept-successor", false, "trust a signer that the one given certified, directly or not")
}

// build gives the library's options. recorded are the backups that the vault in place
// made.
func (o readOptions) build(a *app, cfg vault.Config, recorded map[string]bool) (backup.ReadOptions, error) {
	var signers []string
	for _, s := range o.signers {
		signer, err := parseSigner(s)
		if err != nil {
			return backup.ReadOptions{}, err
		}
		signers = append(signers, signer)
	}
	return backup.ReadOptions{Identities: cfg.Identities, Trust: func(ctx context.Context, c backup.Claim) error {
		if len(signers) == 0 && recorded[c.SumsSHA256] {
			return nil
		}
		if len(signers) == 0 {
			if !a.interactive() {
				return fmt.Errorf("%w: nobody vouched for its signer, %s", backup.ErrUntrusted, c.Signer)
			}
			answer, err := a.ui.ask(ctx, "Fingerprint of the signer, from the sheet (SHA256:...): ")
			if err != nil {
				return err
			}
			if _, err := checkFingerprint(answer); err != nil {
				return err
			}
			signers = []string{answer}
		}
		err := backup.TrustSigners(signers...)(ctx, c)
		if errors.Is(err, backup.ErrSuccessor) && o.acceptSuccessor {
			a.ui.warn("the backup's signer is %s, a successor of the one given", c.Signer)
			return nil
		}
		return err
	}}, nil
}

// recordedBackups returns the SHA-256 of the SHA256SUMS of each backup that the vault in
// place recorded. A vault that does not open vouches for none.
func recordedBackups(ctx context.Context, a *app, cfg vault.Config) map[string]bool {
	cfg.Logger, cfg.ConfirmSigner = nil, nil
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		a.ui.logger().Debug("the vault in place vouches for no backup", "reason", err)
		return nil
	}
	defer v.Close()
	records, err := backup.List(ctx, v)
	if err != nil {
		return nil
	}
	sums := map[string]bool{}
	for _, r := range records {
		if r.Path != "" {
			sums[r.SumsSHA256] = true
		}
	}
	return sums
}
