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

// AddSSHKey stores a private key, sealed, and makes the nodes use it in place of the
// key that they used. The error is ErrExists where the key exists, ErrNotFound where a
// node is missing. Nothing is changed then. The caller wipes the key.
func (r *Registry) AddSSHKey(ctx context.Context, k *PrivateKey, nodes ...string) (SSHKey, error) {
	return r.insertSSHKey(ctx, ActionAddSSHKey, k, nodes)
}

// GenerateSSHKey generates a key as [GeneratePrivateKey] does, stores it, and makes the
// nodes use it. The key never leaves the vault and the process. Errors are those of
// AddSSHKey.
func (r *Registry) GenerateSSHKey(ctx context.Context, kind, comment string, nodes ...string) (SSHKey, error) {
	k, err := GeneratePrivateKey(kind, comment)
	if err != nil {
		return SSHKey{}, err
	}
	defer k.Wipe()
	return r.insertSSHKey(ctx, ActionGenerateSSHKey, k, nodes)
}

func (r *Registry) insertSSHKey(ctx context.Context, action vault.Action, k *PrivateKey, nodes []string) (SSHKey, error) {
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

// storeSSHKey stores a new key, sealed, and its audit row.
func storeSSHKey(ctx context.Context, tx *vault.Tx, action vault.Action, k *PrivateKey) (SSHKey, error) {
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

// FindSSHKey returns the key with this fingerprint. name may also be the comment, or
// the beginning of the fingerprint with at least six characters; SHA256: may be left
// out. No such key is ErrNotFound, and several are ErrInvalid.
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

// AssignSSHKey makes the nodes use the key in place of the key that they used, or with
// "" no key. It ends a rotation of their keys. A missing key or node is ErrNotFound.
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
	if err := cancelKeyRotation(ctx, tx, node); err != nil {
		return err
	}
	return moveNodeSSHKey(ctx, tx, node, old, fingerprint)
}

// moveNodeSSHKey makes a node use another key, with the audit row.
func moveNodeSSHKey(ctx context.Context, tx *vault.Tx, node, old, fingerprint string) error {
	if err := replaceNodeSSHKey(ctx, tx, node, fingerprint); err != nil {
		return err
	}
	detail := describe(fieldChange{"ssh key", orNone(old), orNone(fingerprint)})
	return tx.Audit(ctx, vault.Event{Action: ActionAssignSSHKey, Subject: node, Detail: detail})
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// RemoveSSHKey removes a key. While nodes use it, or rotations of their keys, the error is
// ErrInUse and names the nodes. With unassign these nodes use no key afterwards, and the
// rotations end. A missing key is ErrNotFound.
func (r *Registry) RemoveSSHKey(ctx context.Context, fingerprint string, unassign bool) error {
	err := r.v.Update(ctx, func(tx *vault.Tx) error {
		nodes, err := selectSSHKeyNodes(ctx, tx, fingerprint)
		if err != nil {
			return err
		}
		rotating, err := selectRotationNodes(ctx, tx, fingerprint)
		if err != nil {
			return err
		}
		if using := slices.Compact(slices.Sorted(slices.Values(slices.Concat(nodes, rotating)))); len(using) > 0 && !unassign {
			return fmt.Errorf("%w by %s", ErrInUse, strings.Join(using, ", "))
		}
		for _, node := range rotating {
			if err := cancelKeyRotation(ctx, tx, node); err != nil {
				return err
			}
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
		return tx.Audit(ctx, vault.Event{Action: ActionRemoveSSHKey, Subject: fingerprint})
	})
	if err != nil {
		return fmt.Errorf("remove SSH key %q: %w", fingerprint, err)
	}
	return nil
}

// ExportSSHKey returns a private key as OpenSSH PEM, or ErrNotFound. to says where the
// key goes, for the audit log. The audit row is committed before the key is read. The
// caller wipes the bytes.
func (r *Registry) ExportSSHKey(ctx context.Context, fingerprint, to string) ([]byte, error) {
	if err := r.useSSHKey(ctx, ActionExportSSHKey, fingerprint, to); err != nil {
		return nil, fmt.Errorf("export SSH key %q: %w", fingerprint, err)
	}
	return r.privateKey(ctx, fingerprint)
}

// RefuseSSHKeyExport writes an audit row about an export that was refused.
func (r *Registry) RefuseSSHKeyExport(ctx context.Context, fingerprint, reason string) error {
	return r.v.Update(ctx, func(tx *vault.Tx) error {
		return tx.Audit(ctx, vault.Event{Action: ActionRefuseSSHKeyExport, Subject: fingerprint, Detail: reason})
	})
}

// useSSHKey commits the audit row and the time of a use.
func (r *Registry) useSSHKey(ctx context.Context, action vault.Action, fingerprint, detail string) error {
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

// Signer returns the key that a node uses, for an SSH client, or ErrNotFound. It writes
// an audit row; the signatures themselves are not audited. The private key is unsealed
// for each signature and wiped after it. So the Signer works only while the Registry is
// open and the vault has the key.
func (r *Registry) Signer(ctx context.Context, node string) (ssh.Signer, error) {
	key, err := r.NodeSSHKey(ctx, node)
	if err != nil {
		return nil, err
	}
	return r.keySigner(ctx, key, node)
}

// KeySigner is Signer with another key of the vault than the node uses, as a rotation
// needs it. A missing key is ErrNotFound.
func (r *Registry) KeySigner(ctx context.Context, fingerprint, node string) (ssh.Signer, error) {
	key, err := r.SSHKey(ctx, fingerprint)
	if err != nil {
		return nil, err
	}
	return r.keySigner(ctx, key, node)
}

func (r *Registry) keySigner(ctx context.Context, key SSHKey, node string) (ssh.Signer, error) {
	err := r.useSSHKey(ctx, ActionUseSSHKey, key.Fingerprint, node)
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
	signer, err := s.unseal()
	if err != nil {
		return nil, err
	}
	return signWith(signer, rand, data, algorithm)
}

// unseal returns the private key itself. What it was parsed from is wiped.
func (s *sealedSigner) unseal() (ssh.Signer, error) {
	// The interface ssh.Signer has no context.
	private, err := s.registry.privateKey(context.Background(), s.fingerprint)
	if err != nil {
		return nil, err
	}
	return parseSigner(s.fingerprint, private)
}

// signWith signs by the algorithm, or with "" by the key's own.
func signWith(signer ssh.Signer, rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if with, ok := signer.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return with.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}

// Algorithms implements [ssh.MultiAlgorithmSigner]. An RSA key signs with SHA-2 only.
func (s *sealedSigner) Algorithms() []string {
	if s.public.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{s.public.Type()}
}

// useKey makes a node use a key, and stores the key where the vault does not have it.
func useKey(ctx context.Context, tx *vault.Tx, k *PrivateKey, node string) error {
	_, err := selectSealedSSHKey(ctx, tx, k.Fingerprint())
	if errors.Is(err, ErrNotFound) {
		_, err = storeSSHKey(ctx, tx, ActionAddSSHKey, k)
	}
	if err != nil {
		return err
	}
	return assignSSHKey(ctx, tx, k.Fingerprint(), []string{node})
}

// SSHKey returns the key of that fingerprint, or ErrNotFound.
func (r *Registry) SSHKey(ctx context.Context, fingerprint string) (SSHKey, error) {
	var key SSHKey
	err := r.v.View(ctx, func(tx *vault.Tx) (err error) {
		key, err = selectSSHKey(ctx, tx, fingerprint)
		return err
	})
	if err != nil {
		return SSHKey{}, fmt.Errorf("SSH key %q: %w", fingerprint, err)
	}
	return key, nil
}

// NodeSSHKey returns the key that a node uses. A node without a key and a missing node
// are ErrNotFound.
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
