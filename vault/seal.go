package vault

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// SealedKind says what a sealed value is. A value of one kind does not open as the other kind.
type SealedKind string

// The kinds of sealed values.
const (
	SealedSSHKey     SealedKind = "ssh-key"
	SealedSigningKey SealedKind = "signing-key"
	SealedTarget     SealedKind = "backup-target"
)

// sealVersion is the first byte of a sealed value.
const sealVersion = 0x01

// errSealed gives no cause: without the key the cause cannot be known.
var errSealed = errors.New("a sealed value does not open: it was changed, or moved from another row")

// sealer encrypts single columns inside the encrypted database. So neither an SQL dump nor a
// careless SELECT shows a private key.
type sealer struct {
	key       []byte
	digestKey []byte // of the content digest
	vaultID   string
}

func newSealer(key *Key, vaultID string) sealer {
	return sealer{key: key.Derive(rootkey.Seal), digestKey: key.Derive(rootkey.Digest), vaultID: vaultID}
}

func (s sealer) wipe() {
	wipe(s.key)
	wipe(s.digestKey)
}

func (s sealer) rowHasher() *digest.Hasher { return digest.NewHasher(s.digestKey) }

func (s sealer) additionalData(kind SealedKind, name string) []byte {
	var b []byte
	for _, field := range []string{"rbee-vault/v1/sealed", string(kind), s.vaultID, name} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
		b = append(b, field...)
	}
	return b
}

func (s sealer) seal(kind SealedKind, name string, plaintext []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(s.key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 1+aead.NonceSize(), 1+aead.NonceSize()+len(plaintext)+aead.Overhead())
	out[0] = sealVersion
	rand.Read(out[1:])
	return aead.Seal(out, out[1:], plaintext, s.additionalData(kind, name)), nil
}

func (s sealer) open(kind SealedKind, name string, sealed []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(s.key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < 1+aead.NonceSize() || sealed[0] != sealVersion {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, errSealed)
	}
	nonce, ciphertext := sealed[1:1+aead.NonceSize()], sealed[1+aead.NonceSize():]
	plaintext, err := aead.Open(nil, nonce, ciphertext, s.additionalData(kind, name))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, errSealed)
	}
	return plaintext, nil
}
