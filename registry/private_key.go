package registry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/identity"
)

// minRSABits is the size from which an RSA key is not weak.
const minRSABits = 3072

// PrivateKey is an SSH private key that is to be stored in the vault. The owner
// wipes it.
type PrivateKey struct {
	pem     []byte // OpenSSH, without a passphrase
	public  ssh.PublicKey
	comment string
}

// Fingerprint returns SHA256:..., as ssh-keygen prints it.
func (k *PrivateKey) Fingerprint() string { return ssh.FingerprintSHA256(k.public) }

// Signer returns a signer of the key. It holds the key in memory, also after Wipe.
func (k *PrivateKey) Signer() (ssh.Signer, error) { return ssh.ParsePrivateKey(k.pem) }

// Wipe overwrites the private key. Copies that the runtime made may stay in memory.
func (k *PrivateKey) Wipe() { clear(k.pem) }

// PrivateKeyOptions says how a private key is read.
type PrivateKeyOptions struct {
	// Name is the name of the key in the question for its passphrase. "": "the SSH
	// key".
	Name string
	// Passphrase asks for the passphrase. Nil: a key with a passphrase is refused.
	Passphrase identity.PassphraseFunc
	// AllowWeak accepts RSA keys of fewer than 3072 bits.
	AllowWeak bool
	// Comment replaces the key's comment. "": the comment stays.
	Comment string
}

// ParsePrivateKey reads a private key: ed25519, RSA or ECDSA, as OpenSSH or PEM
// (PKCS#1, PKCS#8, SEC 1), with a passphrase or without. An OpenSSH key without a
// passphrase is kept as it is. Any other key is written as OpenSSH, without the
// passphrase.
//
// Data that is not such a key is a *FieldError, which says what it is instead if that
// can be recognised. A key whose public and private half do not belong together is a
// *FieldError too. A small RSA key is ErrWeakKey, a wrong passphrase
// [identity.ErrPassphrase]. No error contains anything of the data.
func ParsePrivateKey(ctx context.Context, data []byte, opts PrivateKeyOptions) (*PrivateKey, error) {
	if rule := notPrivateKey(data); rule != "" {
		return nil, &FieldError{Field: "private_key", Rule: rule}
	}
	raw, locked, err := readRawKey(ctx, data, opts)
	if err != nil {
		return nil, err
	}
	comment := opts.Comment
	if comment == "" && !locked {
		comment = opensshComment(data)
	}
	k, err := newPrivateKey(raw, comment, opts.AllowWeak)
	if err == nil && !locked && opts.Comment == "" && bytes.HasPrefix(bytes.TrimSpace(data), []byte(opensshHeader)) {
		k.Wipe()
		k.pem = append(bytes.Clone(bytes.TrimSpace(data)), '\n')
	}
	return k, err
}

const (
	opensshType   = "OPENSSH PRIVATE KEY"
	opensshHeader = "-----BEGIN " + opensshType + "-----"
)

// notPrivateKey returns the rule that data breaks as a private key, or "". The rule
// says what the data is instead, if that can be recognised.
func notPrivateKey(data []byte) string {
	text := strings.TrimSpace(string(data[:min(len(data), 4096)]))
	first, _, _ := strings.Cut(text, "\n")
	word, _, _ := strings.Cut(first, " ")
	switch {
	case len(data) > MaxPEM:
		return "is too long"
	case text == "":
		return "is empty"
	case strings.HasPrefix(text, "PuTTY-User-Key-File-"):
		return "is a PuTTY file: export it as an OpenSSH key first (puttygen KEY.ppk -O private-openssh -o KEY)"
	case strings.Contains(word, "-cert-v01@"):
		return "is a certificate: give the private key that it certifies"
	case strings.HasPrefix(word, "ssh-"), strings.HasPrefix(word, "ecdsa-"), strings.HasPrefix(word, "sk-"),
		strings.HasPrefix(text, "-----BEGIN PUBLIC KEY"), strings.HasPrefix(text, "---- BEGIN SSH2 PUBLIC KEY"):
		return "is a public key: give the private key (the file without .pub)"
	case strings.HasPrefix(text, "-----BEGIN CERTIFICATE"):
		return "is an X.509 certificate, not an SSH private key"
	}
	block, rest := pem.Decode([]byte(strings.TrimSpace(string(data))))
	switch {
	case block == nil:
		return ruleUnknownKey
	case len(bytes.TrimSpace(rest)) > 0:
		return "must be one PEM block"
	case block.Type == "DSA PRIVATE KEY":
		return "is a DSA key, which SSH does not support any more"
	}
	if k, ok := parseOpenSSH(block); ok {
		if public, err := ssh.ParsePublicKey(k.PubKey); err == nil && strings.HasPrefix(public.Type(), "sk-") {
			return "belongs to a security key, and only that device can sign with it: it cannot be stored"
		}
	}
	return ""
}

// readRawKey parses the key. It asks for the passphrase where the key has one;
// locked reports that.
func readRawKey(ctx context.Context, data []byte, opts PrivateKeyOptions) (raw any, locked bool, err error) {
	raw, _, err = parseKey(data, nil)
	if _, locked = errors.AsType[*ssh.PassphraseMissingError](err); !locked {
		return raw, false, err
	}
	name := opts.Name
	if name == "" {
		name = "the SSH key"
	}
	err = identity.AskPassphrase(ctx, opts.Passphrase, name, func(passphrase []byte) (err error) {
		if passphrase == nil {
			return identity.ErrPassphrase // to parseKey, nil means no passphrase
		}
		raw, _, err = parseKey(data, passphrase)
		return err
	})
	return raw, true, err
}

const ruleUnknownKey = "is not a private key of a supported format"

// parseKey is the only parser of private keys. It makes the private key sign and
// verifies that with the public key that it returns: a key file may state another
// key's public half, and the fingerprint must not be that key's.
//
// passphrase is nil for none. A key that has one is then an
// [*ssh.PassphraseMissingError]. A wrong passphrase is [identity.ErrPassphrase]. No
// error contains anything of the data.
func parseKey(data, passphrase []byte) (raw any, public ssh.PublicKey, err error) {
	if passphrase == nil {
		raw, err = ssh.ParseRawPrivateKey(data)
		if missing, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
			return nil, nil, missing
		}
	} else if raw, err = ssh.ParseRawPrivateKeyWithPassphrase(data, passphrase); err != nil {
		return nil, nil, identity.ErrPassphrase
	}
	if err != nil {
		return nil, nil, &FieldError{Field: "private_key", Rule: ruleUnknownKey}
	}
	if k, ok := raw.(*ed25519.PrivateKey); ok {
		raw = *k
	}
	if public, err = proveKey(raw); err == nil {
		err = statedHalves(data, public)
	}
	if err != nil {
		return nil, nil, err
	}
	return raw, public, nil
}

// proveKey signs with a private key, verifies the signature with its public half, and
// returns the public half.
func proveKey(raw any) (ssh.PublicKey, error) {
	switch raw.(type) {
	case ed25519.PrivateKey, *rsa.PrivateKey, *ecdsa.PrivateKey:
	default:
		return nil, &FieldError{Field: "private_key", Rule: "must be ed25519, RSA or ECDSA"}
	}
	signer, err := ssh.NewSignerFromKey(raw)
	if err != nil {
		return nil, &FieldError{Field: "private_key", Rule: ruleUnknownKey}
	}
	algorithm := signer.PublicKey().Type()
	if algorithm == ssh.KeyAlgoRSA {
		algorithm = ssh.KeyAlgoRSASHA256
	}
	challenge := make([]byte, 32)
	rand.Read(challenge)
	var signature *ssh.Signature
	if with, ok := signer.(ssh.AlgorithmSigner); ok {
		signature, err = with.SignWithAlgorithm(rand.Reader, challenge, algorithm)
	} else {
		signature, err = signer.Sign(rand.Reader, challenge)
	}
	if err == nil {
		err = signer.PublicKey().Verify(challenge, signature)
	}
	if err != nil {
		return nil, &FieldError{Field: "private_key", Rule: ruleHalves}
	}
	return signer.PublicKey(), nil
}

const ruleHalves = "is damaged or forged: its private and its public half do not belong together"

// statedHalves checks the public halves that an OpenSSH file states beside the
// private key, because other programs use them.
func statedHalves(data []byte, public ssh.PublicKey) error {
	block, _ := pem.Decode(bytes.TrimSpace(data))
	if block == nil || block.Type != opensshType {
		return nil // no other format states a public half
	}
	k, ok := parseOpenSSH(block)
	if !ok { // Go's parser accepts bytes after the end of the file; OpenSSH refuses them
		return &FieldError{Field: "private_key", Rule: ruleUnknownKey}
	}
	same := bytes.Equal(k.PubKey, public.Marshal())
	if k.CipherName == "none" && public.Type() == ssh.KeyAlgoED25519 {
		// An ed25519 key states the half a second time. For the other types, the parser
		// takes the public half from here.
		var inner struct {
			Check1, Check2 uint32
			Type           string
			Public         []byte
			Rest           []byte `ssh:"rest"`
		}
		err := ssh.Unmarshal(k.PrivKeyBlock, &inner)
		half, isKey := public.(ssh.CryptoPublicKey)
		same = same && err == nil && isKey && bytes.Equal(inner.Public, half.CryptoPublicKey().(ed25519.PublicKey))
	}
	if !same {
		return &FieldError{Field: "private_key", Rule: ruleHalves}
	}
	return nil
}

// newPrivateKey writes a parsed or generated key as OpenSSH.
func newPrivateKey(raw any, comment string, allowWeak bool) (*PrivateKey, error) {
	if k, ok := raw.(*rsa.PrivateKey); ok && k.N.BitLen() < minRSABits && !allowWeak {
		return nil, fmt.Errorf("%w: RSA of %d bits, where %d are needed", ErrWeakKey, k.N.BitLen(), minRSABits)
	}
	if rule := ruleComment(comment); rule != "" {
		return nil, &FieldError{Field: "comment", Rule: rule}
	}
	signer, err := ssh.NewSignerFromKey(raw)
	if err != nil {
		return nil, &FieldError{Field: "private_key", Rule: ruleUnknownKey}
	}
	block, err := ssh.MarshalPrivateKey(raw, comment)
	if err != nil {
		return nil, &FieldError{Field: "private_key", Rule: ruleUnknownKey}
	}
	defer clear(block.Bytes)
	return &PrivateKey{pem: pem.EncodeToMemory(block), public: signer.PublicKey(), comment: comment}, nil
}

// GeneratePrivateKey generates a key. kind is "ed25519", or "rsa" for 4096 bits.
func GeneratePrivateKey(kind, comment string) (*PrivateKey, error) {
	switch kind {
	case "ed25519":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		defer clear(private)
		return newPrivateKey(private, comment, false)
	case "rsa":
		private, err := rsa.GenerateKey(rand.Reader, 4096)
		if err != nil {
			return nil, err
		}
		return newPrivateKey(private, comment, false)
	}
	return nil, &FieldError{Field: "type", Rule: "must be ed25519 or rsa"}
}

// opensshKey is OpenSSH's file format of a private key, after the magic; see
// PROTOCOL.key in OpenSSH.
type opensshKey struct {
	CipherName   string
	KdfName      string
	KdfOpts      string
	NumKeys      uint32
	PubKey       []byte
	PrivKeyBlock []byte
}

func parseOpenSSH(block *pem.Block) (k opensshKey, ok bool) {
	const magic = "openssh-key-v1\x00"
	if block == nil || block.Type != opensshType || !bytes.HasPrefix(block.Bytes, []byte(magic)) {
		return k, false
	}
	return k, ssh.Unmarshal(block.Bytes[len(magic):], &k) == nil
}

// opensshComment returns the comment of an OpenSSH private key, or "". The ssh package
// has no function for it.
func opensshComment(data []byte) string {
	block, _ := pem.Decode(bytes.TrimSpace(data))
	k, ok := parseOpenSSH(block)
	if !ok || k.CipherName != "none" {
		return ""
	}
	var head struct {
		Check1, Check2 uint32
		Type           string
		Rest           []byte `ssh:"rest"`
	}
	if ssh.Unmarshal(k.PrivKeyBlock, &head) != nil {
		return ""
	}
	fields := map[string]int{ // between the type and the comment
		ssh.KeyAlgoED25519:  2,
		ssh.KeyAlgoRSA:      6,
		ssh.KeyAlgoECDSA256: 3,
		ssh.KeyAlgoECDSA384: 3,
		ssh.KeyAlgoECDSA521: 3,
	}[head.Type]
	rest := head.Rest
	for range fields {
		var field struct {
			Skipped []byte
			Rest    []byte `ssh:"rest"`
		}
		if ssh.Unmarshal(rest, &field) != nil {
			return ""
		}
		rest = field.Rest
	}
	var last struct {
		Comment string
		Padding []byte `ssh:"rest"`
	}
	if fields == 0 || ssh.Unmarshal(rest, &last) != nil || ruleComment(last.Comment) != "" {
		return ""
	}
	return last.Comment
}
