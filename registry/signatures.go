package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Signature is a signature that a program is about to make with a key of the vault.
type Signature struct {
	Fingerprint string   // of the key
	Nodes       []string // that the login is for; several if they share a host key; none: data
	User        string   // that logs in, as the login says
	Namespace   string   // of the data, where it is not a login: "git"
	Peer        string   // the process that asks for it
}

// Detail returns the detail of the [ActionSignSSHKey] row, whose subject is the key: the
// nodes or the namespace, and the process that asked.
func (s Signature) Detail() string {
	what := fmt.Sprintf("data of namespace %q", s.Namespace)
	if len(s.Nodes) > 0 {
		what = fmt.Sprintf("%s%s; user %q", loginDetail, strings.Join(s.Nodes, ", "), s.User)
	}
	return what + "; " + s.Peer
}

// loginDetail begins the detail of a row about a login, and of no other: what a program
// says of itself comes later.
const loginDetail = "login to "

// SignedNodes returns the nodes that the detail of an [ActionSignSSHKey] row names.
func SignedNodes(detail string) []string {
	rest, ok := strings.CutPrefix(detail, loginDetail)
	if !ok {
		return nil
	}
	nodes, _, _ := strings.Cut(rest, ";")
	return strings.Split(nodes, ", ")
}

// HostSSHKeys returns the SSH keys that may be used with a host: those of the nodes for
// which its host key is pinned. Nodes of each key has these nodes only.
func (r *Registry) HostSSHKeys(ctx context.Context, hostKey ssh.PublicKey) ([]SSHKey, error) {
	var keys []SSHKey
	err := r.v.View(ctx, func(tx *vault.Tx) (err error) {
		keys, err = selectHostSSHKeys(ctx, tx, publicKeyLine(hostKey))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("SSH keys of host %q: %w", ssh.FingerprintSHA256(hostKey), err)
	}
	return keys, nil
}

// AuditSignatures writes an audit row for each signature, all in one transaction. When it
// returns without an error the rows are on the disk, and the signatures may be made: it
// returns a signer for each, in their order, or nil where the vault no longer has the key.
// After an error there are no rows, except after [vault.ErrUnknownOutcome].
//
// Of several signatures with one key, the first that is made unseals the private key for
// all. So a signer is for these signatures: the caller does not keep it.
func (r *Registry) AuditSignatures(ctx context.Context, list []Signature) ([]ssh.MultiAlgorithmSigner, error) {
	signers := make([]ssh.MultiAlgorithmSigner, len(list))
	err := r.v.Update(ctx, func(tx *vault.Tx) error {
		used := map[string]*sharedSigner{} // by fingerprint
		for i, s := range list {
			signer, known := used[s.Fingerprint]
			if !known {
				var err error
				if signer, err = r.markUsed(ctx, tx, s.Fingerprint); err != nil && !errors.Is(err, ErrNotFound) {
					return fmt.Errorf("SSH key %q: %w", s.Fingerprint, err)
				}
				used[s.Fingerprint] = signer
			}
			if signer == nil {
				continue
			}
			if err := tx.Audit(ctx, vault.Event{Action: ActionSignSSHKey, Subject: s.Fingerprint, Detail: s.Detail()}); err != nil {
				return err
			}
			signers[i] = signer
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("audit signatures: %w", err)
	}
	return signers, nil
}

// markUsed stores that a key is used now, and returns its signer. It returns nil with
// ErrNotFound where there is no such key.
func (r *Registry) markUsed(ctx context.Context, tx *vault.Tx, fingerprint string) (*sharedSigner, error) {
	key, err := selectSSHKey(ctx, tx, fingerprint)
	if err != nil {
		return nil, err
	}
	public, err := parsePublicKey(key.Type, key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRow, err)
	}
	if err := updateSSHKeyUsed(ctx, tx, fingerprint, tx.Now()); err != nil {
		return nil, err
	}
	sealed := &sealedSigner{r, fingerprint, public}
	return &sharedSigner{sealed, sync.OnceValues(sealed.unseal)}, nil
}

// sharedSigner is a sealedSigner that unseals the key once: parsing an RSA key takes as
// long as a signature.
type sharedSigner struct {
	*sealedSigner
	unseal func() (ssh.Signer, error)
}

var _ ssh.MultiAlgorithmSigner = (*sharedSigner)(nil)

// Sign implements [ssh.Signer].
func (s *sharedSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm implements [ssh.AlgorithmSigner].
func (s *sharedSigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := s.unseal()
	if err != nil {
		return nil, err
	}
	return signWith(signer, rand, data, algorithm)
}
