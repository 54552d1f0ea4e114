package vault

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Signer is a key that signs or signed for the vault: its backups, the binding of its database
// key, and the certificate of the next signer. Each generation has a new signer, so a person
// who knew an older one cannot sign for the vault any more.
type Signer struct {
	Generation int64
	PublicKey  string // a line as in authorized_keys, without a comment
	// Certificate is the previous signer's signature over the vault's id and PublicKey, as
	// armored sshsig. "" for the vault's first signer.
	Certificate string
	Created     time.Time
	// Sheet is the last time at which a sheet or identity file that names this signer was
	// handed out. Zero: never. A backup does not contain it.
	Sheet time.Time
}

// Fingerprint returns the signer's fingerprint, "SHA256:...".
func (s Signer) Fingerprint() string { return Fingerprint(s.PublicKey) }

// The namespaces of the vault's signatures.
const (
	// SignatureNamespace is the namespace of a backup's signature.
	SignatureNamespace = "rbee-vault-backup"
	// ReceiptNamespace is the namespace of the signature of a receipt: that a restore of a
	// backup was tried out.
	ReceiptNamespace = "rbee-vault-drill"

	certificateNamespace = "rbee-vault-signer"
	bindingNamespace     = "rbee-vault-binding"
)

// AllowedSigner returns the line of an allowed_signers file for a public key line. With it,
// `ssh-keygen -Y verify` accepts backups and receipts that the key signed.
func AllowedSigner(publicKey string) string {
	return `rbee-vault namespaces="` + SignatureNamespace + `,` + ReceiptNamespace + `" ` + publicKey
}

// Fingerprint returns the fingerprint of a public key line as ssh-keygen prints it. If the line
// is malformed, it returns "".
func Fingerprint(publicKey string) string {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}

// newSigningKey generates the Ed25519 key of a generation.
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

// parseSigningKey parses what newSigningKey returns.
func parseSigningKey(privatePEM []byte) (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(privatePEM)
	if err != nil {
		return nil, fmt.Errorf("%w: the signing key is not a private key", ErrDamaged)
	}
	return signer, nil
}

// Sign signs data as `ssh-keygen -Y sign` does, and returns the armored signature.
func Sign(data []byte, signer ssh.Signer, namespace string) ([]byte, error) {
	sig, err := sshsig.Sign(bytes.NewReader(data), signer, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sshsig.Armor(sig), nil
}

// VerifySignature checks that the armored signature was made by the key in a public key line.
func VerifySignature(data, armored []byte, publicKey, namespace string) error {
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil {
		return errors.New("the signer is not a public key")
	}
	sig, err := sshsig.Unarmor(armored)
	if err == nil {
		err = sshsig.Verify(bytes.NewReader(data), sig, public, sshsig.HashSHA512, namespace)
	}
	if err != nil {
		return fmt.Errorf("the signature does not verify: %w", err)
	}
	return nil
}

// certifiedText is the text that a certificate signs: the vault's id and the next signer.
func certifiedText(vaultID, publicKey string) []byte {
	return []byte(vaultID + "\n" + publicKey + "\n")
}

// Predecessors returns public key lines, oldest first. They are the newest signer, which is the
// last, and those from which an unbroken chain of certificates leads to it. signers are in the
// order of their generations.
func Predecessors(vaultID string, signers []Signer) []string {
	var lines []string
	for i := len(signers) - 1; i >= 0; i-- {
		lines = append([]string{signers[i].PublicKey}, lines...)
		if i == 0 {
			break
		}
		err := VerifySignature(certifiedText(vaultID, signers[i].PublicKey), []byte(signers[i].Certificate), signers[i-1].PublicKey, certificateNamespace)
		if err != nil {
			break
		}
	}
	return lines
}

type signerJSON struct {
	Generation  int64   `json:"generation"`
	PublicKey   string  `json:"public_key"`
	Certificate *string `json:"certificate"`
	Created     string  `json:"created"`
}

// MarshalJSON returns the signer as a backup's signers.jsonl contains it.
func (s Signer) MarshalJSON() ([]byte, error) {
	return wire.Marshal(signerJSON{s.Generation, s.PublicKey, wire.Nullable(s.Certificate), wire.FormatTime(s.Created)})
}

// UnmarshalJSON parses what MarshalJSON returns.
func (s *Signer) UnmarshalJSON(data []byte) error {
	var j signerJSON
	if err := wire.Unmarshal(data, &j); err != nil {
		return err
	}
	created, err := wire.ParseTime(j.Created)
	if err != nil {
		return err
	}
	signer := Signer{Generation: j.Generation, PublicKey: j.PublicKey, Certificate: wire.Text(j.Certificate), Created: created}
	switch {
	case signer.Generation < 1:
		return fmt.Errorf("%w: a generation must be 1 or more", ErrInvalid)
	case signer.Fingerprint() == "":
		return fmt.Errorf("%w: a signer must be a public key line", ErrInvalid)
	}
	*s = signer
	return nil
}
