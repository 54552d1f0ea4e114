package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// Login is a login that a program asks to be signed without a connection to the agent. It
// shows what an SSH client shows when it binds a connection, and the same rules decide.
type Login struct {
	Node          string // whose key signs
	HostKey       []byte // in wire format
	SessionID     []byte
	HostSignature []byte // by the host key over the session id, in wire format
	Request       []byte // what is signed: a userauth request (RFC 4252, section 7)
	Peer          unixsocket.Peer
}

// SignLogin signs a login, where the agent would: the host's key is pinned for the node, the
// host has proven to hold it in this session, and the request is a login to that session
// with the node's key. The audit row is on the disk before it returns.
func (s *Server) SignLogin(ctx context.Context, l Login) (*ssh.Signature, error) {
	c := &connection{server: s, peer: l.Peer}
	if err := c.binds.add(ssh.Marshal(bindRequest{HostKey: l.HostKey, SessionID: l.SessionID, Signature: l.HostSignature})); err != nil {
		return nil, err
	}
	u, _, err := parseUserauth(l.Request)
	if err != nil {
		return nil, err
	}
	err = s.cfg.Registry(ctx, func(r *registry.Registry) error {
		nodes, err := c.usable(ctx, r, u.Key)
		if err == nil && !slices.Contains(nodes, l.Node) {
			err = fmt.Errorf("the host's key is not pinned for node %q, or the key is not its key", l.Node)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	answer, err := c.sign(ctx, signRequest{Key: u.Key, Data: l.Request, Flags: signFlags[u.Algorithm]})
	if err != nil {
		return nil, err
	}
	var response signResponse
	var signature ssh.Signature
	if err := errors.Join(ssh.Unmarshal(answer, &response), ssh.Unmarshal(response.Signature, &signature)); err != nil {
		return nil, fmt.Errorf("read the signature: %w", err)
	}
	return &signature, nil
}

// signFlags are the flags of a request for an algorithm. Others have none.
var signFlags = map[string]uint32{
	ssh.KeyAlgoRSASHA256: flagRSASHA256,
	ssh.KeyAlgoRSASHA512: flagRSASHA512,
}
