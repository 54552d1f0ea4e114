package agent

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

var errNoKey = errors.New("the key is not one for this connection")

// keys returns the keys that the connection may see and use, as the registry is now:
// those of the nodes for which the bound host's key is pinned, or without a bind those
// that are allowed there. Nodes of each has the nodes that it may be used for.
func (c *connection) keys(ctx context.Context, r *registry.Registry) ([]registry.SSHKey, error) {
	if host, ok := c.binds.host(); ok {
		return r.HostSSHKeys(ctx, host.plain)
	}
	if !c.binds.none() || len(c.server.cfg.AllowUnbound) == 0 {
		return nil, nil
	}
	keys, err := r.ListSSHKeys(ctx)
	if err != nil {
		return nil, err
	}
	keys = slices.DeleteFunc(keys, func(k registry.SSHKey) bool {
		return !slices.Contains(c.server.cfg.AllowUnbound, k.Fingerprint)
	})
	for i := range keys {
		keys[i].Nodes = nil // a signature here is for none
	}
	return keys, nil
}

// list answers which keys there are for this connection. A locked agent has none.
func (c *connection) list(ctx context.Context) ([]byte, error) {
	if c.server.lock.open() != nil {
		return identitiesAnswer(nil), nil
	}
	var list []identity
	err := c.server.cfg.Registry(ctx, func(r *registry.Registry) error {
		keys, err := c.keys(ctx, r)
		for _, k := range keys {
			public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.PublicKey))
			if err != nil {
				return fmt.Errorf("SSH key %q: %w", k.Fingerprint, err)
			}
			list = append(list, identity{public.Marshal(), k.Comment})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return identitiesAnswer(list), nil
}

// sign makes a signature, where the rules allow it, its question was answered, and its
// audit row is on the disk.
func (c *connection) sign(ctx context.Context, request signRequest) ([]byte, error) {
	if err := c.server.lock.open(); err != nil {
		return nil, err
	}
	wanted, err := c.wanted(request)
	if err != nil {
		return nil, err
	}
	if c.server.cfg.Confirm != nil {
		if wanted.Nodes, err = c.confirm(ctx, wanted.Signature, request.Key); err != nil {
			return nil, err
		}
	}
	var signature *ssh.Signature
	err = c.server.cfg.Registry(ctx, func(r *registry.Registry) (err error) {
		signature, err = c.server.auditor.sign(ctx, r, wanted)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sign with %q: %w", wanted.Fingerprint, err)
	}
	if err := c.server.lock.used(); err != nil { // it was locked meanwhile
		c.server.keys.Forget()
		return nil, err
	}
	return ssh.Marshal(signResponse{ssh.Marshal(signature)}), nil
}

// wanted returns what a request asks for, without its nodes: a login to the bound host, or
// without a bind the signature of a file by a key that is allowed. Anything else is an error.
func (c *connection) wanted(request signRequest) (s registry.SignatureRequest, err error) {
	s.Fingerprint, s.Peer, s.Data = fingerprint(request.Key), c.peer.String(), request.Data
	if s.Algorithm, err = signatureAlgorithm(request.Key, request.Flags); err != nil {
		return s, err
	}
	host, bound := c.binds.host()
	switch {
	case bound:
		s.HostKey = host.plain
		s.User, err = checkLogin(request.Data, request.Key, s.Algorithm, host)
	case !c.binds.none():
		err = errors.New("this connection has a refused bind, or one for forwarding")
	default:
		if s.Namespace, err = parseSSHSIG(request.Data); err == nil && !slices.Contains(c.server.cfg.AllowUnbound, s.Fingerprint) {
			err = errNoKey
		}
	}
	return s, err
}

// confirm asks about a signature, and returns the nodes that the question named. The
// registry is not held while somebody thinks about it.
func (c *connection) confirm(ctx context.Context, s registry.Signature, key []byte) ([]string, error) {
	err := c.server.cfg.Registry(ctx, func(r *registry.Registry) (err error) {
		s.Nodes, err = c.usable(ctx, r, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.server.cfg.Confirm(ctx, s); err != nil {
		return nil, fmt.Errorf("not confirmed: %w", err)
	}
	return s.Nodes, c.server.lock.open() // it may have been locked meanwhile
}

// usable returns the nodes that a key may be used for on this connection, or errNoKey
// where it may not be used.
func (c *connection) usable(ctx context.Context, r *registry.Registry, key []byte) ([]string, error) {
	keys, err := c.keys(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.Fingerprint == fingerprint(key) {
			return k.Nodes, nil
		}
	}
	return nil, errNoKey
}

// fingerprint is that of a public key in its wire form, as the registry has it.
func fingerprint(key []byte) string {
	sum := sha256.Sum256(key)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// signatureAlgorithm returns the algorithm that a request asks for. RSA signs with SHA-2
// only; no other type has flags.
func signatureAlgorithm(key []byte, flags uint32) (string, error) {
	var head struct {
		Type string
		Rest []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(key, &head); err != nil {
		return "", errMalformed
	}
	switch {
	case head.Type == ssh.KeyAlgoRSA && flags == flagRSASHA256:
		return ssh.KeyAlgoRSASHA256, nil
	case head.Type == ssh.KeyAlgoRSA && flags == flagRSASHA512:
		return ssh.KeyAlgoRSASHA512, nil
	case head.Type == ssh.KeyAlgoRSA:
		return "", errors.New("RSA with SHA-1 or unknown flags")
	case flags != 0:
		return "", errors.New("unknown flags")
	}
	return head.Type, nil
}
