package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// match is how a key compares with a reference.
type match string

const (
	matchNone     match = "" // there is no reference
	matchVerified match = "verified"
	matchDiffers  match = "differs"
	matchUnlisted match = "unlisted"
)

// reference is what a file says of host keys.
type reference struct {
	known   map[string][]ssh.PublicKey // by node
	records map[string][]sshfp         // by node
	revoked [][]byte                   // keys in wire format
}

// parseReference reads a known_hosts file or SSHFP records, or lines of both.
func parseReference(a *app, content []byte, nodes []registry.Node) (*reference, error) {
	ref := &reference{records: map[string][]sshfp{}}
	var knownHosts bytes.Buffer
	number := 0
	for line := range bytes.Lines(content) {
		number++
		if name, record, err := parseSSHFP(string(line)); !errors.Is(err, errNotSSHFP) {
			if err != nil {
				a.ui.warn("line %d: %v", number, err)
			}
			for _, n := range nodes {
				if err == nil && (strings.EqualFold(name, n.SSHHost) || strings.EqualFold(name, n.Name)) {
					ref.records[n.Name] = append(ref.records[n.Name], record)
				}
			}
			line = []byte("\n") // so that the numbers of the other lines stay
		}
		if key := revokedKey(line); key != nil {
			ref.revoked = append(ref.revoked, key)
		}
		knownHosts.Write(line)
	}
	known, err := registry.ReadKnownHosts(&knownHosts, nodes)
	if err != nil {
		return nil, err
	}
	for _, p := range known.Skipped {
		a.ui.warn("%s: %s", p.Row, p.Reason)
	}
	if known.More > 0 {
		a.ui.warn("and %d more lines were skipped", known.More)
	}
	ref.known = known.Keys
	return ref, nil
}

// revokedKey returns the key of a @revoked line of known_hosts in wire format, or nil. It
// is revoked for every host, whatever the line says: a stolen key is good for none.
func revokedKey(line []byte) []byte {
	rest, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("@revoked"))
	if !ok {
		return nil
	}
	fields := bytes.Fields(rest)
	if len(fields) < 3 {
		return nil // ReadKnownHosts reports it
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(bytes.Join(fields[1:3], []byte(" ")))
	if err != nil {
		return nil
	}
	return key.Marshal()
}

// compare sets the match of each key of one node.
func (ref *reference) compare(node string, results []scanned) {
	listed := len(ref.known[node]) > 0 || len(ref.records[node]) > 0
	verified := false
	for i := range results {
		r := &results[i]
		r.match = ref.match(node, r.key)
		verified = verified || r.match == matchVerified
	}
	for i := range results {
		// A machine that has none of the keys in the file is not the one in the file.
		if r := &results[i]; listed && !verified && r.match == matchUnlisted {
			r.match = matchDiffers
		}
	}
}

func (ref *reference) match(node string, key ssh.PublicKey) match {
	wireKey := key.Marshal()
	if slices.ContainsFunc(ref.revoked, func(k []byte) bool { return bytes.Equal(k, wireKey) }) {
		return matchDiffers
	}
	m := matchUnlisted
	for _, k := range ref.known[node] {
		switch {
		case k.Type() != key.Type():
		case bytes.Equal(k.Marshal(), wireKey):
			return matchVerified
		default:
			m = matchDiffers
		}
	}
	for _, record := range ref.records[node] {
		switch {
		case record.algorithm != sshfpAlgorithm(key.Type()):
		case record.matches(wireKey):
			return matchVerified
		default:
			m = matchDiffers
		}
	}
	return m
}
