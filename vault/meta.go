package vault

import (
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee-vault/identity"
)

// Meta is what a vault stores about itself.
type Meta struct {
	VaultID    string // a UUID; it never changes
	KeyID      KeyID
	Generation int64 // 1, and one more after each rotation
	Created    time.Time
	KeyCreated time.Time
	Class      identity.Class
	Keyring    bool  // whether the OS keyring is an unlock method
	SlotsSeq   int64 // counts the changes of the slots
	// Signer is the public key of this generation's signer, as a line of authorized_keys
	// without a comment. It signs the vault's backups.
	Signer string
	// OriginVaultID and OriginSigner belong to the vault from whose backup this vault was
	// restored; or "".
	OriginVaultID string
	OriginSigner  string

	signingKey []byte // PEM, sealed
	binding    string // the signer's signature over vault, key id and check value
}

// SignerFingerprint returns the fingerprint of Signer, "SHA256:...".
func (m Meta) SignerFingerprint() string { return Fingerprint(m.Signer) }

// boundText is the text that a binding signs. It says that the key belongs to the vault.
func boundText(m Meta, check string) []byte {
	return []byte(m.VaultID + "\n" + m.KeyID.String() + "\n" + check + "\n")
}

// checkBinding checks that the vault's signer signed the key's binding. The error matches
// [ErrDamaged].
func (m Meta) checkBinding(check string) error {
	if err := VerifySignature(boundText(m, check), []byte(m.binding), m.Signer, bindingNamespace); err != nil {
		return fmt.Errorf("%w: its signer did not sign its key: %w", ErrDamaged, err)
	}
	return nil
}
