package vault

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Meta is what a vault says of itself.
type Meta struct {
	VaultID    string // a UUID, for life
	KeyID      KeyID
	Generation int64 // 1, and one more with each rotation
	Created    time.Time
	KeyCreated time.Time
	Class      Class
	Keyring    bool  // whether the OS keyring is a way in
	SlotsSeq   int64 // counts changes of the slots
	// Signer is the public key that signs this vault's backups, as a line of
	// authorized_keys without a comment.
	Signer string
	// OriginVaultID and OriginSigner are those of the vault whose backup this
	// one was restored from, or "".
	OriginVaultID string
	OriginSigner  string

	signingKey []byte // sealed PEM
}

// SignerFingerprint returns the fingerprint of Signer, "SHA256:...".
func (m Meta) SignerFingerprint() string { return Fingerprint(m.Signer) }

// Fingerprint returns the fingerprint of a public key line as ssh-keygen prints
// it, or "" when the line is none.
func Fingerprint(publicKey string) string {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

// SignatureNamespace is the sshsig namespace of a backup's signature.
const SignatureNamespace = "rbee-vault-backup"

// AllowedSigner returns a public key line as the line of an allowed_signers
// file with which `ssh-keygen -Y verify` accepts that key's backups.
func AllowedSigner(publicKey string) string {
	return `rbee-vault namespaces="` + SignatureNamespace + `" ` + publicKey
}

// newSigningKey makes the Ed25519 key that signs backups.
func newSigningKey() (publicLine string, privatePEM []byte, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, err
	}
	defer wipe(private)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", nil, err
	}
	defer wipe(block.Bytes)
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", nil, err
	}
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(sshPublic)), "\n"), pem.EncodeToMemory(block), nil
}

// Meta returns what the vault says of itself.
func (tx *Tx) Meta(ctx context.Context) (Meta, error) {
	m, err := selectMeta(ctx, tx)
	if err != nil {
		return Meta{}, fmt.Errorf("read vault_meta: %w", err)
	}
	return m, nil
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
	signer, err := ssh.ParsePrivateKey(privatePEM)
	if err != nil {
		return nil, errors.New("the signing key is not a private key")
	}
	return signer, nil
}
