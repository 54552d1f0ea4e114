package hive

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// pins are the host keys that are pinned for a node.
type pins []ssh.PublicKey

func (d *Dialer) pins(ctx context.Context, node string) (pins, error) {
	if draft := d.draft(node); draft != nil {
		return draft.HostKeys, nil
	}
	keys, err := d.Registry.ListHostKeys(ctx, node)
	if err != nil {
		return nil, err
	}
	var p pins
	for _, k := range keys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.PublicKey))
		if err != nil {
			return nil, fmt.Errorf("host key of node %q: %w", node, err)
		}
		p = append(p, key)
	}
	return p, nil
}

// check returns a *[HostKeyError] for a key that is not pinned.
func (p pins) check(key ssh.PublicKey) error {
	for _, pinned := range p {
		if pinned.Type() == key.Type() && bytes.Equal(pinned.Marshal(), key.Marshal()) {
			return nil
		}
	}
	bad := &HostKeyError{Key: key}
	for _, pinned := range p {
		bad.Pinned = append(bad.Pinned, ssh.FingerprintSHA256(pinned))
	}
	return bad
}

// algorithms are the host key algorithms of the pinned types, or nil where nothing is
// pinned: then any will do, for a person to look at. No certificates: nothing here checks
// one.
func (p pins) algorithms() []string {
	var found []string
	for _, pinned := range p {
		for _, a := range algorithmsOf(pinned.Type()) {
			if !slices.Contains(found, a) {
				found = append(found, a)
			}
		}
	}
	return found
}

// algorithmsOf are the signature algorithms of a type of key: of RSA those with SHA-2.
func algorithmsOf(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

// hostKeyTypes are those that a server is asked for, the usual ones first.
var hostKeyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA,
}
