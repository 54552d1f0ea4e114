package registry

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// knownHost is a node's address as known_hosts has it.
func knownHost(n Node) string {
	return knownhosts.Normalize(net.JoinHostPort(n.SSHHost, strconv.Itoa(int(n.SSHPort))))
}

// WriteKnownHosts writes the pinned host keys as OpenSSH reads them, the node's
// name for a comment.
func WriteKnownHosts(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	addresses := map[string]string{}
	for n, err := range EachNode(ctx, tx) {
		if err != nil {
			return err
		}
		addresses[n.Name] = knownHost(n)
	}
	for k, err := range EachHostKey(ctx, tx) {
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s %s %s\n", addresses[k.Node], k.PublicKey, k.Node); err != nil {
			return err
		}
	}
	return nil
}

// KnownHosts is what a known_hosts file says of some nodes.
type KnownHosts struct {
	Keys    map[string][]ssh.PublicKey // by the node's name
	Skipped []Problem                  // lines that were left out, with the reason
}

// ReadKnownHosts looks the nodes up in an OpenSSH known_hosts file, which may be a
// pipe: hashed names and ports as well. Left out are a key that the file revokes,
// certificate authorities, which cannot be pinned, and of several keys of one type
// for a node all, as one alone can be pinned. A file that OpenSSH could not read is
// ErrInvalid.
func ReadKnownHosts(path string, nodes []Node) (KnownHosts, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return KnownHosts{}, err
	}
	check, err := parseKnownHosts(content)
	if err != nil {
		return KnownHosts{}, fmt.Errorf("known_hosts file %q: %w", path, err)
	}
	lines := bytes.Split(content, []byte("\n"))
	found := KnownHosts{Keys: map[string][]ssh.PublicKey{}}
	// A key that is in no file is answered with those that are.
	nobody, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	if err != nil {
		return KnownHosts{}, err
	}
	for _, n := range nodes {
		address := net.JoinHostPort(n.SSHHost, strconv.Itoa(int(n.SSHPort)))
		asked := check(address, &net.TCPAddr{}, nobody)
		known, ok := errors.AsType[*knownhosts.KeyError](asked)
		if !ok {
			continue
		}
		byType := map[string][]ssh.PublicKey{}
		for _, k := range known.Want {
			where := fmt.Sprintf("%s, line %d", n.Name, k.Line)
			if bytes.HasPrefix(bytes.TrimSpace(lines[k.Line-1]), []byte("@cert-authority")) {
				found.Skipped = append(found.Skipped, Problem{where, "a certificate authority cannot be pinned"})
				continue
			}
			if _, revoked := errors.AsType[*knownhosts.RevokedError](check(address, &net.TCPAddr{}, k.Key)); revoked {
				found.Skipped = append(found.Skipped, Problem{where, "the file revokes this key"})
				continue
			}
			same := func(other ssh.PublicKey) bool { return bytes.Equal(other.Marshal(), k.Key.Marshal()) }
			if kind := k.Key.Type(); !slices.ContainsFunc(byType[kind], same) {
				byType[kind] = append(byType[kind], k.Key)
			}
		}
		for _, kind := range slices.Sorted(maps.Keys(byType)) {
			if keys := byType[kind]; len(keys) > 1 {
				found.Skipped = append(found.Skipped, Problem{n.Name, fmt.Sprintf("the file has %d keys of type %s: pin one of them by its fingerprint", len(keys), kind)})
				continue
			}
			found.Keys[n.Name] = append(found.Keys[n.Name], byType[kind]...)
		}
	}
	return found, nil
}

// parseKnownHosts gives the content to x/crypto, which takes files alone, by a file
// of its own: what is read once cannot change, and a pipe can be read only once.
func parseKnownHosts(content []byte) (ssh.HostKeyCallback, error) {
	f, err := os.CreateTemp("", "known_hosts-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	check, err := knownhosts.New(f.Name())
	if err != nil {
		reason := strings.NewReplacer("knownhosts: ", "", f.Name()+":", "line ").Replace(err.Error())
		return nil, fmt.Errorf("%w: %s", ErrInvalid, reason)
	}
	return check, nil
}
