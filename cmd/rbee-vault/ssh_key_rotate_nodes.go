package main

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// nodeKeys is rotationHosts by SSH.
type nodeKeys struct {
	registry *registry.Registry
	dialer   *hive.Dialer

	mu      sync.Mutex               // guards what follows
	signers map[[2]string]ssh.Signer // by node and fingerprint: one audit row for each
	others  map[string]*otherNode    // that use an old key
}

// otherNode is a node that is asked about the new keys of several others, one question at a
// time: a server has a limit on the sessions of a connection.
type otherNode struct {
	mu    sync.Mutex
	asked bool
	conn  *hive.Conn // nil: there is none
}

// newNodeKeys returns rotationHosts for the nodes of a registry. The caller closes it.
func newNodeKeys(r *registry.Registry) *nodeKeys {
	return &nodeKeys{registry: r, dialer: &hive.Dialer{Registry: r}, signers: map[[2]string]ssh.Signer{}, others: map[string]*otherNode{}}
}

func (n *nodeKeys) dial(ctx context.Context, node, fingerprint string) (*hive.Conn, error) {
	signer, err := n.signer(ctx, node, fingerprint)
	if err != nil {
		return nil, err
	}
	return n.dialer.DialBy(ctx, node, func(context.Context, registry.Node) ([]ssh.AuthMethod, error) {
		return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
	})
}

func (n *nodeKeys) signer(ctx context.Context, node, fingerprint string) (ssh.Signer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := [2]string{node, fingerprint}
	if n.signers[id] == nil {
		signer, err := n.registry.KeySigner(ctx, fingerprint, node)
		if err != nil {
			return nil, err
		}
		n.signers[id] = signer
	}
	return n.signers[id], nil
}

func (n *nodeKeys) login(ctx context.Context, node, fingerprint string) error {
	conn, err := n.dial(ctx, node, fingerprint)
	conn.Close()
	return err
}

// keys returns the two keys of a rotation.
func (n *nodeKeys) keys(ctx context.Context, k registry.KeyRotation) (old, new registry.SSHKey, err error) {
	if old, err = n.registry.SSHKey(ctx, k.Old); err == nil {
		new, err = n.registry.SSHKey(ctx, k.New)
	}
	return old, new, err
}

func (n *nodeKeys) authorize(ctx context.Context, k registry.KeyRotation) error {
	old, new, err := n.keys(ctx, k)
	if err != nil {
		return err
	}
	conn, err := n.dial(ctx, k.Node, k.Old)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.AuthorizeLike(ctx, new.PublicKey+" "+commentOf(new), old.PublicKey)
	return err
}

func (n *nodeKeys) deauthorize(ctx context.Context, k registry.KeyRotation) (removed bool, err error) {
	old, new, err := n.keys(ctx, k)
	if err != nil {
		return false, err
	}
	if err := n.checkAccount(ctx, k, old, new); err != nil {
		return false, err
	}
	conn, err := n.dial(ctx, k.Node, k.New)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return conn.Deauthorize(ctx, old.PublicKey, new.PublicKey)
}

// checkAccount checks that no other node that uses the old key would lose it too: another
// name of the same account, or a node with the same home directory. The latter is asked
// whether it has the new key. One that does not answer may go on: the new key would open it.
func (n *nodeKeys) checkAccount(ctx context.Context, k registry.KeyRotation, old, new registry.SSHKey) error {
	node, err := n.registry.GetNode(ctx, k.Node)
	if err != nil {
		return err
	}
	var same []string
	for _, user := range old.Nodes {
		other, err := n.registry.GetNode(ctx, user)
		if err != nil {
			return err
		}
		if other.SSHHost == node.SSHHost && other.SSHPort == node.SSHPort && other.SSHUser == node.SSHUser || n.has(ctx, user, new) {
			same = append(same, user)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(same) > 0 {
		list := strings.Join(same, " ")
		return withHint(fmt.Errorf("%w: %s", errSameAccount, list), "Rotate them together: rbee-vault ssh-key rotate %s %s", k.Node, list)
	}
	return nil
}

// has reports whether a node is known to accept a key, by a login with its own.
func (n *nodeKeys) has(ctx context.Context, node string, key registry.SSHKey) bool {
	n.mu.Lock()
	other := n.others[node]
	if other == nil {
		other = &otherNode{}
		n.others[node] = other
	}
	n.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	if !other.asked {
		other.conn, _ = n.dialer.Dial(ctx, node)
		other.asked = true
	}
	if other.conn == nil {
		return false
	}
	found, err := other.conn.Authorizes(ctx, key.PublicKey)
	return err == nil && found
}

// close closes the connections that are kept.
func (n *nodeKeys) close() {
	for _, other := range n.others {
		other.conn.Close()
	}
}
