package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// AddSSHKey seals a private key into the vault and has the nodes use it, in place
// of what they used. It is ErrExists where the key is there, ErrNotFound where a
// node is not; then nothing is changed. The caller wipes the key.
func (r *Registry) AddSSHKey(ctx context.Context, k *PrivateKey, nodes ...string) (SSHKey, error) {
	return r.insertSSHKey(ctx, "ssh-key.add", k, nodes)
}

// GenerateSSHKey makes a key that never exists outside the vault, of the kinds of
// [GeneratePrivateKey], and has the nodes use it. Errors are those of AddSSHKey.
func (r *Registry) GenerateSSHKey(ctx context.Context, kind, comment string, nodes ...string) (SSHKey, error) {
	k, err := GeneratePrivateKey(kind, comment)
	if err != nil {
		return SSHKey{}, err
	}
	defer k.Wipe()
	return r.insertSSHKey(ctx, "ssh-key.generate", k, nodes)
}

func (r *Registry) insertSSHKey(ctx context.Context, action string, k *PrivateKey, nodes []string) (SSHKey, error) {
	var key SSHKey
	err := r.v.Update(ctx, func(tx *vault.Tx) (err error) {
		if key, err = storeSSHKey(ctx, tx, action, k); err != nil {
			return err
		}
		return assignSSHKey(ctx, tx, key.Fingerprint, nodes)
	})
	if err != nil {
		return SSHKey{}, fmt.Errorf("add SSH key %q: %w", k.Fingerprint(), err)
	}
	key.Nodes = slices.Compact(slices.Sorted(slices.Values(nodes)))
	return key, nil
}

// storeSSHKey seals a new key in, with its audit row.
func storeSSHKey(ctx context.Context, tx *vault.Tx, action string, k *PrivateKey) (SSHKey, error) {
	key := SSHKey{
		Fingerprint: k.Fingerprint(),
		Type:        k.public.Type(),
		PublicKey:   publicKeyLine(k.public),
		Comment:     k.comment,
		Created:     tx.Now(),
	}
	if err := insertSSHKeyAndNodes(ctx, tx, key, k.pem); err != nil {
		return SSHKey{}, err
	}
	return key, tx.Audit(ctx, vault.Event{Action: action, Subject: key.Fingerprint, Detail: strings.TrimSpace(key.Type + " " + key.Comment)})
}

// ListSSHKeys returns the SSH keys by fingerprint, without their private halves.
func (r *Registry) ListSSHKeys(ctx context.Context) ([]SSHKey, error) {
	var list []SSHKey
	err := r.v.View(ctx, func(tx *vault.Tx) error {
		for k, err := range EachSSHKey(ctx, tx) {
			if err != nil {
				return err
			}
			list = append(list, k)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// FindSSHKey picks the one key that a person means: by its fingerprint, the
// beginning of it (SHA256: may be left out) from six characters on, or its comment.
// It is ErrNotFound, or ErrInvalid where several are meant.
func FindSSHKey(keys []SSHKey, name string) (SSHKey, error) {
	var found []SSHKey
	hash := strings.TrimPrefix(name, "SHA256:")
	for _, k := range keys {
		if k.Fingerprint == name {
			return k, nil
		}
		if k.Comment == name || len(hash) >= 6 && strings.HasPrefix(k.Fingerprint, "SHA256:"+hash) {
			found = append(found, k)
		}
	}
	switch {
	case len(found) == 1 && name != "":
		return found[0], nil
	case len(found) > 1 && name != "":
		return SSHKey{}, fmt.Errorf("%w: %q names %d SSH keys: give the fingerprint", ErrInvalid, name, len(found))
	}
	return SSHKey{}, fmt.Errorf("SSH key %q: %w", name, ErrNotFound)
}

// AssignSSHKey has the nodes use the key, in place of what they used; "" takes away
// what they use. It is ErrNotFound where the key or a node is not there.
func (r *Registry) AssignSSHKey(ctx context.Context, fingerprint string, nodes ...string) error {
	err := r.v.Update(ctx, func(tx *vault.Tx) error {
		if fingerprint != "" {
			if _, err := selectSealedSSHKey(ctx, tx, fingerprint); err != nil {
				return err
			}
		}
		return assignSSHKey(ctx, tx, fingerprint, nodes)
	})
	if err != nil {
		return fmt.Errorf("assign SSH key %q: %w", fingerprint, err)
	}
	return nil
}

func assignSSHKey(ctx context.Context, tx *vault.Tx, fingerprint string, nodes []string) error {
	for _, name := range nodes {
		if err := assignNodeSSHKey(ctx, tx, fingerprint, name); err != nil {
			return fmt.Errorf("node %q: %w", name, err)
		}
	}
	return nil
}

func assignNodeSSHKey(ctx context.Context, tx *vault.Tx, fingerprint, node string) error {
	if err := requireNode(ctx, tx, node); err != nil {
		return err
	}
	old, err := selectNodeSSHKey(ctx, tx, node)
	if err != nil || old == fingerprint {
		return err
	}
	if err := replaceNodeSSHKey(ctx, tx, node, fingerprint); err != nil {
		return err
	}
	detail := describe(fieldChange{"ssh key", orNone(old), orNone(fingerprint)})
	return tx.Audit(ctx, vault.Event{Action: "ssh-key.assign", Subject: node, Detail: detail})
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// RemoveSSHKey removes a key. While nodes use it, it is ErrInUse and names them,
// unless they are to be left without one. A key that is not there is ErrNotFound.
func (r *Registry) RemoveSSHKey(ctx context.Context, fingerprint string, unassign bool) error {
	err := r.v.Update(ctx, func(tx *vault.Tx) error {
		nodes, err := selectSSHKeyNodes(ctx, tx, fingerprint)
		if err != nil {
			return err
		}
		if len(nodes) > 0 && !unassign {
			return fmt.Errorf("%w by %s", ErrInUse, strings.Join(nodes, ", "))
		}
		if err := assignSSHKey(ctx, tx, "", nodes); err != nil {
			return err
		}
		gone, err := deleteUnusedSSHKey(ctx, tx, fingerprint)
		if err != nil {
			return err
		}
		if !gone {
			return ErrNotFound
		}
		return tx.Audit(ctx, vault.Event{Action: "ssh-key.remove", Subject: fingerprint})
	})
	if err != nil {
		return fmt.Errorf("remove SSH key %q: %w", fingerprint, err)
	}
	return nil
}

// ExportSSHKey returns a private key as OpenSSH PEM, or ErrNotFound. That it was
// read is in the audit log before it is. The caller wipes the bytes.
func (r *Registry) ExportSSHKey(ctx context.Context, fingerprint, to string) ([]byte, error) {
	if err := r.useSSHKey(ctx, "ssh-key.export", fingerprint, to); err != nil {
		return nil, fmt.Errorf("export SSH key %q: %w", fingerprint, err)
	}
	return r.privateKey(ctx, fingerprint)
}

// RefuseSSHKeyExport puts into the audit log that an export was asked for and
// refused.
func (r *Registry) RefuseSSHKeyExport(ctx context.Context, fingerprint, reason string) error {
	return r.v.Update(ctx, func(tx *vault.Tx) error {
		return tx.Audit(ctx, vault.Event{Action: "ssh-key.export-refused", Subject: fingerprint, Detail: reason})
	})
}

// useSSHKey commits the audit row of a use, and when it was.
func (r *Registry) useSSHKey(ctx context.Context, action, fingerprint, detail string) error {
	return r.v.Update(ctx, func(tx *vault.Tx) error {
		if err := updateSSHKeyUsed(ctx, tx, fingerprint, tx.Now()); err != nil {
			return err
		}
		return tx.Audit(ctx, vault.Event{Action: action, Subject: fingerprint, Detail: detail})
	})
}

func (r *Registry) privateKey(ctx context.Context, fingerprint string) (private []byte, err error) {
	err = r.v.View(ctx, func(tx *vault.Tx) (err error) {
		private, err = PrivateKeyPEM(ctx, tx, fingerprint)
		return err
	})
	return private, err
}

// ActionUseSSHKey is the audit log's action for a key that signs for a node from then
// on: the key is its subject, the node its detail.
const ActionUseSSHKey = "ssh-key.use"

// Signer returns the key that a node uses, for an SSH client, or ErrNotFound. That
// it is used is in the audit log from then on. The private key is unsealed for each
// signature and wiped behind it, so the Signer works as long as the Registry is open
// and the key is there.
func (r *Registry) Signer(ctx context.Context, node string) (ssh.Signer, error) {
	key, err := r.NodeSSHKey(ctx, node)
	if err != nil {
		return nil, err
	}
	err = r.useSSHKey(ctx, ActionUseSSHKey, key.Fingerprint, node)
	var public ssh.PublicKey
	if err == nil {
		public, err = parsePublicKey(key.Type, key.PublicKey)
	}
	if err != nil {
		return nil, fmt.Errorf("SSH key of node %q: %w", node, err)
	}
	return &sealedSigner{r, key.Fingerprint, public}, nil
}

// sealedSigner unseals a key for each signature.
type sealedSigner struct {
	registry    *Registry
	fingerprint string
	public      ssh.PublicKey
}

var _ ssh.MultiAlgorithmSigner = (*sealedSigner)(nil)

// PublicKey implements [ssh.Signer].
func (s *sealedSigner) PublicKey() ssh.PublicKey { return s.public }

// Sign implements [ssh.Signer].
func (s *sealedSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm implements [ssh.AlgorithmSigner].
func (s *sealedSigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	// An ssh.Signer is given no context.
	private, err := s.registry.privateKey(context.Background(), s.fingerprint)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("%w: SSH key %q is no private key", ErrBadRow, s.fingerprint)
	}
	if with, ok := signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return with.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}

// Algorithms implements [ssh.MultiAlgorithmSigner]: of RSA those with SHA-2.
func (s *sealedSigner) Algorithms() []string {
	if s.public.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{s.public.Type()}
}

// useKey has a node use a key, which is sealed in unless it is there.
func useKey(ctx context.Context, tx *vault.Tx, k *PrivateKey, node string) error {
	_, err := selectSealedSSHKey(ctx, tx, k.Fingerprint())
	if errors.Is(err, ErrNotFound) {
		_, err = storeSSHKey(ctx, tx, "ssh-key.add", k)
	}
	if err != nil {
		return err
	}
	return assignSSHKey(ctx, tx, k.Fingerprint(), []string{node})
}

// NodeSSHKey returns the key of the vault that a node uses, or ErrNotFound where it
// uses none or is not there.
func (r *Registry) NodeSSHKey(ctx context.Context, node string) (SSHKey, error) {
	var key SSHKey
	err := r.v.View(ctx, func(tx *vault.Tx) (err error) {
		key, err = nodeSSHKey(ctx, tx, node)
		return err
	})
	if err != nil {
		return SSHKey{}, fmt.Errorf("SSH key of node %q: %w", node, err)
	}
	return key, nil
}

func nodeSSHKey(ctx context.Context, tx *vault.Tx, node string) (SSHKey, error) {
	fingerprint, err := selectNodeSSHKey(ctx, tx, node)
	if err != nil {
		return SSHKey{}, err
	}
	if fingerprint == "" {
		return SSHKey{}, ErrNotFound
	}
	return selectSSHKey(ctx, tx, fingerprint)
}
