package registry

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// KnownHostsAddress returns a node's address as known_hosts has it.
func (n Node) KnownHostsAddress() string {
	return knownhosts.Normalize(net.JoinHostPort(canonicalHost(n.SSHHost), strconv.Itoa(int(n.SSHPort))))
}

// KnownHost is a pinned host key with its node's address.
type KnownHost struct {
	HostKey
	Address string // as known_hosts has it
}

// Line returns the line of a known_hosts file of OpenSSH, with its end. The comment is the
// node's name.
func (k KnownHost) Line() string { return k.Address + " " + k.PublicKey + " " + k.Node + "\n" }

// EachKnownHost yields all host keys in the order of [EachHostKey]. It stops after an error.
func EachKnownHost(ctx context.Context, tx *vault.Tx) iter.Seq2[KnownHost, error] {
	return func(yield func(KnownHost, error) bool) {
		for k, err := range selectKnownHosts(ctx, tx) {
			if err == nil {
				if bad := k.Validate(); bad != nil {
					err = errBadHostKey(k.HostKey, bad)
				}
			}
			if err != nil {
				yield(KnownHost{}, fmt.Errorf("read host keys: %w", err))
				return
			}
			if !yield(k, nil) {
				return
			}
		}
	}
}

// WriteKnownHosts writes the pinned host keys as a known_hosts file of OpenSSH.
func WriteKnownHosts(ctx context.Context, tx *vault.Tx, w io.Writer) error {
	for k, err := range EachKnownHost(ctx, tx) {
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, k.Line()); err != nil {
			return err
		}
	}
	return nil
}

// KnownHosts is what a known_hosts file says about some nodes.
type KnownHosts struct {
	Keys    map[string][]ssh.PublicKey // by the node's name
	Skipped []Problem                  // lines that were skipped, with the reason: the first hundred
	More    int                        // how many more were skipped
}

// Limits of a known_hosts file, in bytes.
const (
	maxKnownHostsLine = 64 << 10
	maxKnownHosts     = 64 << 20
)

// ReadKnownHosts looks up the nodes in an OpenSSH known_hosts file. It understands
// hashed names, patterns and ports, and an address in any of its forms. It skips and
// reports:
//
//   - a malformed line, as OpenSSH does;
//   - a key that the file revokes;
//   - a certificate authority, which cannot be pinned;
//   - all keys of a type, where a node has several: only one can be pinned.
//
// A file of more than 64 MB is ErrInvalid.
func ReadKnownHosts(r io.Reader, nodes []Node) (KnownHosts, error) {
	return readKnownHosts(r, nodes, false)
}

// ReadExactKnownHosts is [ReadKnownHosts], but a line that matches a node only by a pattern
// is skipped and reported too: its key need not be that of this node alone.
func ReadExactKnownHosts(r io.Reader, nodes []Node) (KnownHosts, error) {
	return readKnownHosts(r, nodes, true)
}

func readKnownHosts(r io.Reader, nodes []Node, exact bool) (KnownHosts, error) {
	found := KnownHosts{Keys: map[string][]ssh.PublicKey{}}
	var entries []knownHostEntry
	revoked := map[string]bool{} // public keys in wire format
	for line, err := range eachLine(r, maxKnownHostsLine, maxKnownHosts) {
		if err != nil {
			return KnownHosts{}, fmt.Errorf("read known_hosts: %w", err)
		}
		e, rule := parseKnownHost(line)
		switch {
		case rule != "":
			found.skip(Problem{line.where(), rule})
		case e.marker == "@revoked": // of any host: a stolen key is revoked for all
			revoked[string(e.key.Marshal())] = true
		case e.key != nil:
			entries = append(entries, e)
		}
	}
	for _, n := range nodes {
		found.add(n, entries, revoked, exact)
	}
	return found, nil
}

func (found *KnownHosts) skip(p Problem) {
	found.Skipped, found.More = addProblem(found.Skipped, found.More, p)
}

// add looks a node up in the entries.
func (found *KnownHosts) add(n Node, entries []knownHostEntry, revoked map[string]bool, exact bool) {
	byType := map[string][]ssh.PublicKey{}
	forms := addressForms(n)
	for _, e := range entries {
		if !e.matches(forms) {
			continue
		}
		where := fmt.Sprintf("%s, line %d", n.Name, e.line)
		same := func(other ssh.PublicKey) bool { return bytes.Equal(other.Marshal(), e.key.Marshal()) }
		switch kind := e.key.Type(); {
		case e.marker == "@cert-authority":
			found.skip(Problem{where, "a certificate authority cannot be pinned"})
		case revoked[string(e.key.Marshal())]:
			found.skip(Problem{where, "the file revokes this key"})
		case exact && !e.names(forms[0]):
			found.skip(Problem{where, "a pattern is not an exact entry for the node"})
		case !slices.ContainsFunc(byType[kind], same):
			byType[kind] = append(byType[kind], e.key)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(byType)) {
		if keys := byType[kind]; len(keys) > 1 {
			found.skip(Problem{n.Name, fmt.Sprintf("the file has %d keys of type %s: pin one of them by its fingerprint", len(keys), kind)})
			continue
		}
		found.Keys[n.Name] = append(found.Keys[n.Name], byType[kind]...)
	}
}

// knownHostEntry is a line of known_hosts.
type knownHostEntry struct {
	line   int
	marker string        // "", "@revoked" or "@cert-authority"
	hosts  string        // patterns separated by commas, or one hashed name
	salt   []byte        // of the hashed name
	hash   []byte        // of the hashed name; nil: hosts has patterns
	key    ssh.PublicKey // nil: the line is a comment or empty
}

// parseKnownHost parses a line. rule says why a line is malformed. A line without an
// entry has neither a rule nor a key.
func parseKnownHost(line textLine) (e knownHostEntry, rule string) {
	fields := strings.Fields(string(line.text))
	switch {
	case line.long:
		return e, fmt.Sprintf("it has more than %d bytes", maxKnownHostsLine)
	case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
		return e, ""
	}
	if strings.HasPrefix(fields[0], "@") {
		e.marker, fields = fields[0], fields[1:]
		if e.marker != "@revoked" && e.marker != "@cert-authority" {
			return e, fmt.Sprintf("%.40q is not a known marker", e.marker)
		}
	}
	if len(fields) < 3 {
		return e, "a host, a type and a key are needed"
	}
	e.line, e.hosts = line.number, fields[0]
	if strings.HasPrefix(e.hosts, "|") {
		if e.salt, e.hash, rule = parseHashedName(e.hosts); rule != "" {
			return e, rule
		}
	}
	e.key, rule = parseKnownHostKey(fields[1], fields[2])
	return e, rule
}

// parseHashedName parses |1|salt|hash.
func parseHashedName(s string) (salt, hash []byte, rule string) {
	const malformed = "its hashed name is malformed"
	parts := strings.Split(s, "|")
	if len(parts) != 4 || parts[1] != "1" {
		return nil, nil, malformed
	}
	salt, err := base64.StdEncoding.DecodeString(parts[2])
	if err == nil {
		hash, err = base64.StdEncoding.DecodeString(parts[3])
	}
	if err != nil || len(hash) != sha1.Size {
		return nil, nil, malformed
	}
	return salt, hash, ""
}

func parseKnownHostKey(keyType, text string) (key ssh.PublicKey, rule string) {
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, "its key is not base64"
	}
	key, err = ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Sprintf("its key has the type %.40q, which is not supported, or is malformed", keyType)
	}
	if key.Type() != keyType {
		return nil, fmt.Sprintf("its key is not of the type %.40q that it states", keyType)
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, "a certificate cannot be pinned"
	}
	return key, ""
}

// matches reports whether the entry is for a node with these address forms.
func (e knownHostEntry) matches(forms []string) bool {
	if e.hash != nil {
		return slices.ContainsFunc(forms, func(form string) bool {
			mac := hmac.New(sha1.New, e.salt)
			mac.Write([]byte(form))
			return hmac.Equal(mac.Sum(nil), e.hash)
		})
	}
	found := false
	for pattern := range strings.SplitSeq(e.hosts, ",") {
		pattern, negated := strings.CutPrefix(asciiLower(pattern), "!")
		if !matchPattern(canonicalPattern(pattern), forms[0]) {
			continue
		}
		if negated {
			return false // a negated pattern wins over all others
		}
		found = true
	}
	return found
}

// names reports whether an entry that matches the address has it in full.
func (e knownHostEntry) names(address string) bool {
	if e.hash != nil {
		return true
	}
	for pattern := range strings.SplitSeq(e.hosts, ",") {
		if canonicalPattern(asciiLower(pattern)) == address {
			return true
		}
	}
	return false
}

// addressForms returns all forms in which known_hosts may have a node's address. The
// first is the canonical one. The others are needed for hashed names, which can only
// be compared as a whole.
func addressForms(n Node) []string {
	hosts := []string{canonicalHost(n.SSHHost)}
	if addr, err := netip.ParseAddr(hosts[0]); err == nil {
		hosts = append(hosts, addr.StringExpanded())
		zone := ""
		if addr.Zone() != "" {
			zone = "%" + addr.Zone()
		}
		if addr.Is4() {
			hosts = append(hosts, "::ffff:"+addr.String())
		} else {
			var groups []string
			for b := addr.As16(); len(groups) < 8; {
				i := 2 * len(groups)
				groups = append(groups, strconv.FormatUint(uint64(b[i])<<8|uint64(b[i+1]), 16))
			}
			hosts = append(hosts, strings.Join(groups, ":")+zone)
		}
	}
	forms := make([]string, len(hosts))
	for i, host := range hosts {
		forms[i] = host
		if n.SSHPort != DefaultSSHPort {
			forms[i] = "[" + host + "]:" + strconv.Itoa(int(n.SSHPort))
		}
	}
	return forms
}

// canonicalPattern is canonicalHost for a pattern, which may be [address]:port.
func canonicalPattern(pattern string) string {
	if rest, ok := strings.CutPrefix(pattern, "["); ok {
		if host, port, ok := strings.Cut(rest, "]"); ok {
			return "[" + canonicalHost(host) + "]" + port
		}
	}
	return canonicalHost(pattern)
}

// matchPattern is OpenSSH's match_pattern: * matches any text, ? one character.
func matchPattern(pattern, s string) bool {
	star, at := -1, 0 // the last *, and the end of the text that it matches
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, at = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]):
			i, j = i+1, j+1
		case star >= 0: // the * matches one more character
			at++
			i, j = star+1, at
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}
