package vault

import (
	"context"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Signers returns the vault's signers by generation. The last one is the current signer.
func (tx *Tx) Signers(ctx context.Context) ([]Signer, error) {
	signers, err := selectSigners(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("read signers: %w", err)
	}
	return signers, nil
}

// Signer returns the key that signs this vault's backups.
func (tx *Tx) Signer(ctx context.Context) (ssh.Signer, error) {
	m, err := tx.Meta(ctx)
	if err != nil {
		return nil, err
	}
	privatePEM, err := tx.Unseal(ctx, SealedSigningKey, m.SignerFingerprint(), m.signingKey)
	if err != nil {
		return nil, fmt.Errorf("unseal signing key: %w", err)
	}
	defer wipe(privatePEM)
	return parseSigningKey(privatePEM)
}

// RecordSheet records that a sheet or an identity file with the current signer was handed out.
func (v *Vault) RecordSheet(ctx context.Context) error {
	return v.Update(ctx, func(tx *Tx) error { return updateSheet(ctx, tx) })
}
