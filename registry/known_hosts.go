package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"crypto/ed25519"
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

// ReadKnownHosts looks the nodes up in an OpenSSH known_hosts file: hashed names and
// ports as well. A key that the file revokes is left out, and so are certificate
// authorities, which cannot be pinned. A file that OpenSSH could not read is
// ErrInvalid.
func ReadKnownHosts(path string, nodes []Node) (KnownHosts, error) {
	lines, err := readLines(path)
	if err != nil {
		return KnownHosts{}, err
	}
	check, err := knownhosts.New(path)
	if err != nil {
		return KnownHosts{}, fmt.Errorf("%w: known_hosts file %q: %w", ErrInvalid, path, err)
	}
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
		for _, k := range known.Want {
			where := fmt.Sprintf("%s, line %d", n.Name, k.Line)
			if strings.HasPrefix(lines[k.Line-1], "@cert-authority") {
				found.Skipped = append(found.Skipped, Problem{where, "a certificate authority cannot be pinned"})
				continue
			}
			if _, revoked := errors.AsType[*knownhosts.RevokedError](check(address, &net.TCPAddr{}, k.Key)); revoked {
				found.Skipped = append(found.Skipped, Problem{where, "the file revokes this key"})
				continue
			}
			found.Keys[n.Name] = append(found.Keys[n.Name], k.Key)
		}
	}
	return found, nil
}

func readLines(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		lines = append(lines, strings.TrimSpace(s.Text()))
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return lines, nil
}
