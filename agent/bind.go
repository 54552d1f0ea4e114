package agent

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// extensionBind is OpenSSH's extension by which an SSH client says which host the
// connection is for (PROTOCOL.agent, section 1).
const extensionBind = "session-bind@openssh.com"

const (
	maxSessionID = 128 // as OpenSSH
	maxBinds     = 16  // as OpenSSH
)

// bindRequest is the contents of the extension.
type bindRequest struct {
	HostKey    []byte
	SessionID  []byte
	Signature  []byte
	Forwarding byte
}

// signatureBlob is a signature, as the SSH protocol writes it.
type signatureBlob struct {
	Format string
	Blob   []byte
}

// bind is a host that has proven to hold its key in an SSH session.
type bind struct {
	sessionID  []byte
	hostKey    []byte        // as the client sent it; may be a certificate
	plain      ssh.PublicKey // the key itself
	forwarding bool
}

// binds are those of one connection, in their order. Their state only goes towards
// signing nothing: OpenSSH ignores that a bind was refused, goes on, and with -A relays
// the remote host to the same connection.
type binds struct {
	list      []bind
	refused   bool // one of them was refused
	forwarded bool // one of them was for forwarding
}

// errBind is why a bind was refused.
var errBind = errors.New("bind refused")

// add verifies a bind and adds it. After an error nothing is listed or signed on this
// connection any more.
func (b *binds) add(contents []byte) error {
	added, err := b.verify(contents)
	if err != nil {
		b.refused = true
		return fmt.Errorf("%w: %w", errBind, err)
	}
	b.forwarded = b.forwarded || added.forwarding
	b.list = append(b.list, added)
	return nil
}

func (b *binds) verify(contents []byte) (bind, error) {
	var r bindRequest
	if err := ssh.Unmarshal(contents, &r); err != nil || r.Forwarding > 1 {
		return bind{}, errors.New("it is malformed")
	}
	switch {
	case len(r.SessionID) == 0 || len(r.SessionID) > maxSessionID:
		return bind{}, fmt.Errorf("a session id of %d bytes", len(r.SessionID))
	case len(b.list) >= maxBinds:
		return bind{}, errors.New("too many binds")
	case len(b.list) > 0 && !b.list[len(b.list)-1].forwarding:
		return bind{}, errors.New("the connection is bound for authentication already")
	case slices.ContainsFunc(b.list, func(old bind) bool { return bytes.Equal(old.sessionID, r.SessionID) }):
		return bind{}, errors.New("the session id was bound before")
	}
	plain, err := plainHostKey(r.HostKey)
	if err != nil {
		return bind{}, err
	}
	var s signatureBlob
	if err := ssh.Unmarshal(r.Signature, &s); err != nil {
		return bind{}, errors.New("its signature is malformed")
	}
	if s.Format == ssh.KeyAlgoRSA {
		return bind{}, errors.New("its signature is over SHA-1")
	}
	if err := plain.Verify(r.SessionID, &ssh.Signature{Format: s.Format, Blob: s.Blob}); err != nil {
		return bind{}, errors.New("its signature is not by the host key")
	}
	return bind{
		sessionID:  bytes.Clone(r.SessionID), // the request is wiped
		hostKey:    bytes.Clone(r.HostKey),
		plain:      plain,
		forwarding: r.Forwarding == 1,
	}, nil
}

// plainHostKey returns the key that a host proves to hold, also where it presents it in a
// certificate. The pins are plain keys, so what the certificate says decides nothing.
func plainHostKey(blob []byte) (ssh.PublicKey, error) {
	// The key is kept, and refers to the bytes it was parsed from.
	key, err := ssh.ParsePublicKey(bytes.Clone(blob))
	if err != nil {
		return nil, errors.New("its host key is malformed")
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return key, nil
	}
	if cert.CertType != ssh.HostCert {
		return nil, errors.New("its certificate is not a host's")
	}
	return cert.Key, nil
}

// host returns the bind that decides what is listed and signed, or false where nothing
// is, by the binds.
func (b *binds) host() (bind, bool) {
	if b.refused || b.forwarded || len(b.list) == 0 {
		return bind{}, false
	}
	return b.list[len(b.list)-1], true
}

// none reports whether nobody has tried to bind the connection.
func (b *binds) none() bool { return len(b.list) == 0 && !b.refused }
