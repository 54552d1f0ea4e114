package vault

import (
	"context"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee-vault/identity"
)

// Meta is what a vault says of itself.
type Meta struct {
	VaultID    string // a UUID, for life
	KeyID      KeyID
	Generation int64 // 1, and one more with each rotation
	Created    time.Time
	KeyCreated time.Time
	Class      identity.Class
	Keyring    bool  // whether the OS keyring is a way in
	SlotsSeq   int64 // counts changes of the slots
	// Signer is the public key of this generation, which signs the vault's backups, as
	// a line of authorized_keys without a comment.
	Signer string
	// OriginVaultID and OriginSigner are those of the vault whose backup this
	// one was restored from, or "".
	OriginVaultID string
	OriginSigner  string

	signingKey []byte // sealed PEM
	binding    string // the signer's signature over vault, key id and check value
}

// SignerFingerprint returns the fingerprint of Signer, "SHA256:...".
func (m Meta) SignerFingerprint() string { return Fingerprint(m.Signer) }

// Meta returns what the vault says of itself.
func (tx *Tx) Meta(ctx context.Context) (Meta, error) {
	m, err := selectMeta(ctx, tx)
	if err != nil {
		return Meta{}, fmt.Errorf("read vault_meta: %w", err)
	}
	return m, nil
}
