package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

var (
	_ json.Marshaler   = SSHKey{}
	_ json.Unmarshaler = (*SSHKey)(nil)
)

// MaxPEM limits a private key in PEM, in bytes. An RSA key of 16384 bits has
// 12 kB.
const MaxPEM = 64 << 10

// SSHKey is an SSH key in the vault, without its private half.
type SSHKey struct {
	Fingerprint string    // SHA256:..., as ssh-keygen prints it
	Type        string    // such as ssh-ed25519
	PublicKey   string    // public key line without a comment
	Comment     string    // may be empty
	Created     time.Time // whole milliseconds, UTC
	Used        time.Time // when the private key was last used; zero: never; an agent's signatures count once a minute
	Nodes       []string  // names of the nodes that use it, sorted
}

// Validate returns a *FieldError when a field is not valid or does not agree with
// another.
func (k SSHKey) Validate() error {
	key, err := parsePublicKey(k.Type, k.PublicKey)
	if err != nil {
		return err
	}
	if ssh.FingerprintSHA256(key) != k.Fingerprint {
		return &FieldError{Field: "fingerprint", Rule: "must be that of the public key"}
	}
	if rule := ruleComment(k.Comment); rule != "" {
		return &FieldError{Field: "comment", Rule: rule}
	}
	if !validMilli(k.Created) {
		return &FieldError{Field: "created", Rule: ruleUnix}
	}
	if !k.Used.IsZero() && !validMilli(k.Used) {
		return &FieldError{Field: "used", Rule: ruleUnix}
	}
	for i, name := range k.Nodes {
		if rule := ruleName(name); rule != "" {
			return &FieldError{Field: "nodes", Rule: rule}
		}
		if i > 0 && k.Nodes[i-1] >= name {
			return &FieldError{Field: "nodes", Rule: "must be sorted, each name once"}
		}
	}
	return nil
}

type sshKeyJSON struct {
	Fingerprint string   `json:"fingerprint"`
	Type        string   `json:"type"`
	PublicKey   string   `json:"public_key"`
	Comment     string   `json:"comment"`
	Created     string   `json:"created"`
	Used        *string  `json:"used"`
	Nodes       []string `json:"nodes"`
}

// MarshalJSON returns the key on one line, with its fields in a fixed order.
func (k SSHKey) MarshalJSON() ([]byte, error) {
	w := sshKeyJSON{
		Fingerprint: k.Fingerprint,
		Type:        k.Type,
		PublicKey:   k.PublicKey,
		Comment:     k.Comment,
		Created:     wire.FormatTime(k.Created),
		Nodes:       k.Nodes,
	}
	if !k.Used.IsZero() {
		used := wire.FormatTime(k.Used)
		w.Used = &used
	}
	if w.Nodes == nil {
		w.Nodes = []string{}
	}
	return wire.MarshalTexts(w, append([]string{k.Fingerprint, k.Type, k.PublicKey, k.Comment}, k.Nodes...)...)
}

// UnmarshalJSON reads what MarshalJSON writes and validates it. Every field is
// required. Errors are ErrInvalid; k is then unchanged.
func (k *SSHKey) UnmarshalJSON(data []byte) error {
	var got SSHKey
	err := wire.UnmarshalObject(data, []wire.Field{
		{Name: "fingerprint", Value: &got.Fingerprint, Required: true},
		{Name: "type", Value: &got.Type, Required: true},
		{Name: "public_key", Value: &got.PublicKey, Required: true},
		{Name: "comment", Value: &got.Comment, Required: true},
		{Name: "created", Value: &got.Created, Required: true},
		{Name: "used", Value: &got.Used, Required: true, Nullable: true},
		{Name: "nodes", Value: &got.Nodes, Required: true},
	})
	if err != nil {
		return err
	}
	if len(got.Nodes) == 0 {
		got.Nodes = nil
	}
	if err := got.Validate(); err != nil {
		return err
	}
	*k = got
	return nil
}

// EachSSHKey yields all SSH keys by fingerprint. It stops after an error. Other
// statements may run in tx during the iteration.
func EachSSHKey(ctx context.Context, tx *vault.Tx) iter.Seq2[SSHKey, error] {
	return func(yield func(SSHKey, error) bool) {
		for k, err := range selectAllSSHKeys(ctx, tx) {
			if err == nil {
				if bad := k.Validate(); bad != nil {
					err = fmt.Errorf("%w %.80q: %v", ErrBadRow, k.Fingerprint, bad)
				}
			}
			if err != nil {
				yield(SSHKey{}, fmt.Errorf("read SSH keys: %w", err))
				return
			}
			if !yield(k, nil) {
				return
			}
		}
	}
}

// PrivateKeyPEM returns a private key as it was stored, or ErrNotFound. The caller
// must have committed an audit row about it before. The caller wipes the bytes.
func PrivateKeyPEM(ctx context.Context, tx *vault.Tx, fingerprint string) ([]byte, error) {
	sealed, err := selectSealedSSHKey(ctx, tx, fingerprint)
	if err != nil {
		return nil, fmt.Errorf("read SSH key %q: %w", fingerprint, err)
	}
	private, err := tx.Unseal(ctx, vault.SealedSSHKey, fingerprint, sealed)
	if err != nil {
		return nil, fmt.Errorf("unseal SSH key %q: %w", fingerprint, err)
	}
	return private, nil
}

// InsertSSHKey stores a key of a backup, with the nodes that use it, and seals its
// private half; see [SSHKey.Matches]. The error is ErrExists when the key exists or
// one of the nodes has a key, ErrNotFound when one of the nodes is missing. After an
// error the transaction must not be committed. It writes no audit row and does not
// keep private.
func InsertSSHKey(ctx context.Context, tx *vault.Tx, k SSHKey, private []byte) error {
	if err := insertSSHKeyAndNodes(ctx, tx, k, private); err != nil {
		return fmt.Errorf("insert SSH key %q: %w", k.Fingerprint, err)
	}
	return nil
}

func insertSSHKeyAndNodes(ctx context.Context, tx *vault.Tx, k SSHKey, private []byte) error {
	if err := k.Validate(); err != nil {
		return err
	}
	if err := k.Matches(private); err != nil {
		return err
	}
	sealed, err := tx.Seal(ctx, vault.SealedSSHKey, k.Fingerprint, private)
	if err != nil {
		return err
	}
	if err := insertSSHKey(ctx, tx, k, sealed); err != nil {
		return err
	}
	for _, name := range slices.Sorted(slices.Values(k.Nodes)) {
		err := requireNode(ctx, tx, name)
		if err == nil {
			err = insertNodeSSHKey(ctx, tx, name, k.Fingerprint)
		}
		if err != nil {
			return fmt.Errorf("assign to node %q: %w", name, err)
		}
	}
	return nil
}

// Matches checks that the private key is one PEM block without a passphrase, that it
// can sign, and that it belongs to k's public key. The error is a [*FieldError].
func (k SSHKey) Matches(private []byte) error {
	if rule := notPrivateKey(private); rule != "" || !bytes.HasPrefix(private, []byte("-----BEGIN ")) {
		return &FieldError{Field: "private_key", Rule: "must be one PEM block of a private key"}
	}
	_, public, err := parseKey(private, nil)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return &FieldError{Field: "private_key", Rule: "must not have a passphrase"}
	}
	if err != nil {
		return err
	}
	if publicKeyLine(public) != k.PublicKey {
		return &FieldError{Field: "private_key", Rule: "must belong to the public key"}
	}
	return nil
}
