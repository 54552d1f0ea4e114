package agent

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

const (
	msgUserauthRequest = 50
	serviceConnection  = "ssh-connection"
	methodPublicKey    = "publickey"
	// methodHostBound names the host key that the login is for (OpenSSH's PROTOCOL,
	// section 3.1).
	methodHostBound = "publickey-hostbound-v00@openssh.com"

	// maxName limits user names and namespaces, which go into the audit log.
	maxName = 255
)

// userauth is what is signed at a login (RFC 4252, section 7).
type userauth struct {
	SessionID []byte
	Message   byte
	User      string
	Service   string
	Method    string
	Signed    byte
	Algorithm string
	Key       []byte
	Rest      []byte `ssh:"rest"` // the host key, by methodHostBound
}

type hostBound struct {
	HostKey []byte
}

// parseUserauth parses the data of a login, strictly: nothing may follow, and every field
// has its one valid form. hostKey is nil where the method has none.
func parseUserauth(data []byte) (u userauth, hostKey []byte, err error) {
	if err := ssh.Unmarshal(data, &u); err != nil {
		return userauth{}, nil, errors.New("the data is not a login")
	}
	switch {
	case u.Message != msgUserauthRequest || u.Signed != 1:
		return userauth{}, nil, errors.New("the data is not a login")
	case u.Service != serviceConnection:
		return userauth{}, nil, fmt.Errorf("a login to service %.80q", u.Service)
	case len(u.User) > maxName:
		return userauth{}, nil, errors.New("the user's name is too long")
	}
	switch u.Method {
	case methodPublicKey:
		if len(u.Rest) > 0 {
			return userauth{}, nil, errors.New("data behind the login")
		}
	case methodHostBound:
		var h hostBound
		if err := ssh.Unmarshal(u.Rest, &h); err != nil {
			return userauth{}, nil, errors.New("the login's host key is malformed")
		}
		hostKey = h.HostKey
	default:
		return userauth{}, nil, fmt.Errorf("a login by method %.80q", u.Method)
	}
	return u, hostKey, nil
}

// checkLogin says why the data of a signature request is not a login with this key and
// algorithm in the bound session, or returns the user's name.
func checkLogin(data, key []byte, algorithm string, b bind) (user string, err error) {
	u, hostKey, err := parseUserauth(data)
	switch {
	case err != nil:
		return "", err
	case !bytes.Equal(u.SessionID, b.sessionID):
		return "", errors.New("a login to another session than the bound one")
	case !bytes.Equal(u.Key, key):
		return "", errors.New("a login with another key than the one that signs")
	case u.Algorithm != algorithm:
		return "", fmt.Errorf("a login by %.80q, a signature by %q", u.Algorithm, algorithm)
	case u.Method == methodHostBound && !bytes.Equal(hostKey, b.hostKey):
		return "", errors.New("a login to another host key than the bound one")
	}
	return u.User, nil
}

const sshsigMagic = "SSHSIG"

// sshsig is what is signed of a file (OpenSSH's PROTOCOL.sshsig). No login begins with
// its magic: that would be a session id of more than a gigabyte.
type sshsig struct {
	Magic     [len(sshsigMagic)]byte
	Namespace string
	Reserved  string
	Hash      string
	Digest    []byte
}

// parseSSHSIG parses the data of a signature of a file, strictly, and returns its
// namespace.
func parseSSHSIG(data []byte) (namespace string, err error) {
	if !bytes.HasPrefix(data, []byte(sshsigMagic)) {
		return "", errors.New("a connection without a bind signs files only")
	}
	var s sshsig
	if err := ssh.Unmarshal(data, &s); err != nil {
		return "", errors.New("the data to sign is malformed")
	}
	size, ok := map[string]int{"sha256": 32, "sha512": 64}[s.Hash]
	switch {
	case !ok || len(s.Digest) != size:
		return "", errors.New("the data to sign has no known hash")
	case s.Reserved != "":
		return "", errors.New("the data to sign has a field that this agent does not know")
	case s.Namespace == "" || len(s.Namespace) > maxName:
		return "", errors.New("the namespace is missing or too long")
	}
	return s.Namespace, nil
}
