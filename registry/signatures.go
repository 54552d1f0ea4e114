package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

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

// SignatureRequest is a signature that a program asks for.
type SignatureRequest struct {
	// Signature is for the audit log. Nodes of a login are those that somebody confirmed; nil:
	// nobody was asked.
	Signature
	// HostKey is that of the host that is logged in to. Nil: the data is not a login.
	HostKey   ssh.PublicKey
	Data      []byte
	Algorithm string
}

// PendingSignature waits until the signature is made, and returns it. The error is
// ErrNotFound where the vault does not have the key, or no node that uses it has this host
// key pinned.
type PendingSignature func() (*ssh.Signature, error)

// errNodesChanged: not the confirmed nodes use the key and have the host key pinned.
var errNodesChanged = errors.New("the nodes of the key are others than those confirmed")

// Sign writes an audit row for each signature that is allowed, all in one transaction, and
// makes the signatures while it commits. Nobody gets one before the rows are on the disk. It
// returns the signatures in the order of the requests; the caller waits for each, and does
// not change the requests before. After an error there are no rows and no signatures, except
// after [vault.ErrUnknownOutcome]: then there may be rows.
func (r *Registry) Sign(ctx context.Context, keys *KeyCache, list []SignatureRequest) ([]PendingSignature, error) {
	pending := make([]PendingSignature, len(list))
	var running sync.WaitGroup
	err := r.v.Update(ctx, func(tx *vault.Tx) error {
		for i, request := range list {
			signer, err := r.admit(ctx, tx, keys, request)
			if refused := errors.Is(err, ErrNotFound) || errors.Is(err, errNodesChanged); err != nil && !refused {
				return fmt.Errorf("SSH key %q: %w", request.Fingerprint, err)
			}
			if err != nil {
				pending[i] = func() (*ssh.Signature, error) { return nil, err }
				continue
			}
			pending[i] = startSignature(&running, signer, request)
		}
		return nil
	})
	if err != nil {
		running.Wait()
		return nil, fmt.Errorf("audit signatures: %w", err)
	}
	return pending, nil
}

// admit sees that a request is allowed, and writes its audit row. It returns the key, which
// is to be parsed yet.
func (r *Registry) admit(ctx context.Context, tx *vault.Tx, keys *KeyCache, request SignatureRequest) (func() (ssh.Signer, error), error) {
	s := request.Signature
	if request.HostKey != nil {
		nodes, err := selectHostSSHKeyNodes(ctx, tx, s.Fingerprint, publicKeyLine(request.HostKey))
		switch {
		case err != nil:
			return nil, err
		case len(nodes) == 0:
			return nil, ErrNotFound
		case s.Nodes != nil && !slices.Equal(s.Nodes, nodes):
			return nil, errNodesChanged
		}
		s.Nodes = nodes
	}
	sealed, used, err := selectSigningKey(ctx, tx, s.Fingerprint)
	if err != nil {
		return nil, err
	}
	if age := tx.Now().Sub(used); age.Abs() >= usedLag {
		if err := updateSSHKeyUsed(ctx, tx, s.Fingerprint, tx.Now()); err != nil {
			return nil, err
		}
	}
	if err := tx.Audit(ctx, vault.Event{Action: ActionSignSSHKey, Subject: s.Fingerprint, Detail: s.Detail()}); err != nil {
		return nil, err
	}
	return keys.signer(ctx, r.v, tx, s.Fingerprint, sealed)
}

// usedLag is how far the time of a key's last use may be behind. The audit log has the time
// of each signature, and a row less to write makes signatures faster.
const usedLag = time.Minute

// startSignature makes a signature in a goroutine of its own.
func startSignature(running *sync.WaitGroup, key func() (ssh.Signer, error), request SignatureRequest) PendingSignature {
	var signature *ssh.Signature
	var err error
	done := make(chan struct{})
	running.Go(func() {
		defer close(done)
		var signer ssh.Signer
		if signer, err = key(); err == nil {
			signature, err = signWith(signer, rand.Reader, request.Data, request.Algorithm)
		}
	})
	return func() (*ssh.Signature, error) {
		<-done
		return signature, err
	}
}
