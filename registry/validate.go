package registry

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Limits of a node's fields, in bytes or in entries.
const (
	maxName        = 64
	maxHost        = 253
	maxUser        = 64
	maxURL         = 1024
	maxBranch      = 255
	maxPath        = 1024
	maxBackendName = 32
	maxBackends    = 64
	maxNote        = 1000
	maxLabel       = 63 // key or value
	maxLabels      = 32
)

// maxUnix is the last second of the year 9999. RFC 3339 has no later time.
const maxUnix = 253402300799

// Validate checks every field and returns a *FieldError for the first one that is not
// valid. No field may start with '-', because a program would take it as an option.
// Every field must be UTF-8 without control characters. The other rules:
//
//   - Name: a letter or digit, then letters, digits and ._-, at most 64 bytes.
//   - SSHHost: a DNS name (with underscores, but without a dot at the end), an IPv4
//     address, or an IPv6 address without brackets, with or without a zone. It is
//     stored in one form: an address as netip writes it, a name in lower case.
//   - SSHPort: 1 to 65535.
//   - SSHUser: a letter, digit or underscore, then also .@+-, at most 64 bytes.
//   - SSHKeyPath: empty or absolute, at most 1024 bytes.
//   - GitRepoURL: https, http, ssh, git or file, or [user@]host:path; at most
//     1024 bytes; no query, no fragment. A password is refused, and so is a user
//     name that looks like a token: every list of nodes would show it.
//   - GitBranch: a branch name that git check-ref-format accepts, at most 255 bytes.
//   - InstallPath: absolute, or with ~/ at the start, at most 1024 bytes.
//   - LastConnected: zero, or 1970 to 9999.
//   - Status: one of the four, or empty.
//   - Backends, keys of Devices: a lower-case letter or digit, then also ._-, at
//     most 32 bytes; at most 64 of each.
//   - ProxyJump: empty, or another node's name. That there is such a node is seen when it
//     is stored.
//   - Note: empty, or at most 1000 bytes.
//   - Labels: key and value of letters, digits and ._-, the first and the last a letter or
//     digit, at most 63 bytes; a value may be empty; at most 32 labels.
func (n Node) Validate() error { return n.validate() }

func (n *Node) validate() error {
	if rule := ruleName(n.Name); rule != "" {
		return &FieldError{Field: "node_name", Rule: rule}
	}
	if rule := ruleHost(n.SSHHost); rule != "" {
		return &FieldError{Field: "ssh_host", Rule: rule}
	}
	if n.SSHPort == 0 {
		return &FieldError{Field: "ssh_port", Rule: rulePort}
	}
	if rule := ruleUser(n.SSHUser); rule != "" {
		return &FieldError{Field: "ssh_user", Rule: rule}
	}
	if n.SSHKeyPath != "" {
		if rule := rulePath(n.SSHKeyPath, false); rule != "" {
			return &FieldError{Field: "ssh_key_path", Rule: rule}
		}
	}
	if rule := ruleGitURL(n.GitRepoURL); rule != "" {
		return &FieldError{Field: "git_repo_url", Rule: rule}
	}
	if rule := ruleBranch(n.GitBranch); rule != "" {
		return &FieldError{Field: "git_branch", Rule: rule}
	}
	if rule := rulePath(n.InstallPath, true); rule != "" {
		return &FieldError{Field: "install_path", Rule: rule}
	}
	if !n.LastConnected.IsZero() && !validUnix(n.LastConnected.Unix()) {
		return &FieldError{Field: "last_connected_unix", Rule: ruleUnix}
	}
	if n.Status != "" && !n.Status.Valid() {
		return &FieldError{Field: "status", Rule: ruleStatus}
	}
	if err := validateCapabilities(n.Backends, n.Devices); err != nil {
		return err
	}
	if n.ProxyJump != "" {
		if rule := ruleName(n.ProxyJump); rule != "" {
			return &FieldError{Field: "proxy_jump", Rule: rule}
		}
		if n.ProxyJump == n.Name {
			return &FieldError{Field: "proxy_jump", Rule: ruleJumpBack}
		}
	}
	if n.Note != "" {
		if rule := ruleText(n.Note, maxNote); rule != "" {
			return &FieldError{Field: "note", Rule: rule}
		}
	}
	if rule := ruleLabels(n.Labels); rule != "" {
		return &FieldError{Field: "labels", Rule: rule}
	}
	return nil
}

const (
	rulePort   = "must be 1 to 65535"
	ruleUnix   = "must be in the years 1970 to 9999"
	ruleStatus = "must be unknown, online, offline or error"
)

func validateCapabilities(backends []string, devices map[string]uint32) error {
	if len(backends) > maxBackends {
		return &FieldError{Field: "backends", Rule: fmt.Sprintf("must have at most %d entries", maxBackends)}
	}
	for _, name := range backends {
		if rule := ruleBackend(name); rule != "" {
			return &FieldError{Field: "backends", Rule: rule}
		}
	}
	if len(devices) > maxBackends {
		return &FieldError{Field: "devices", Rule: fmt.Sprintf("must have at most %d entries", maxBackends)}
	}
	for name := range devices {
		if rule := ruleBackend(name); rule != "" {
			return &FieldError{Field: "devices", Rule: rule}
		}
	}
	return nil
}

func validUnix(seconds int64) bool { return 0 <= seconds && seconds <= maxUnix }

// validMilli reports whether a time is after the zero of Unix time and can be written
// as RFC 3339.
func validMilli(t time.Time) bool {
	return t.UnixMilli() > 0 && validUnix(t.Unix())
}

// ruleText returns the general rule that a text field breaks, or "".
func ruleText(s string, limit int) string {
	switch {
	case s == "":
		return "must not be empty"
	case len(s) > limit:
		return fmt.Sprintf("must have at most %d bytes", limit)
	case s[0] == '-':
		return "must not start with '-'"
	}
	return ruleCharacters(s)
}

// ruleCharacters refuses bytes that are not UTF-8, and characters that control a
// terminal or change the direction of text. It refuses the replacement character too,
// which decoders put in place of bytes that are not UTF-8.
func ruleCharacters(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			return ruleRunes(s[i:])
		}
	}
	return ""
}

func ruleRunes(s string) string {
	for _, r := range s {
		switch {
		case r == utf8.RuneError:
			return "must be UTF-8"
		case wire.Control(r):
			return "must not contain control characters"
		}
	}
	return ""
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// only reports whether s has only letters, digits and the bytes of extra.
func only(s, extra string) bool {
	for i := 0; i < len(s); i++ {
		if !isAlnum(s[i]) && strings.IndexByte(extra, s[i]) < 0 {
			return false
		}
	}
	return true
}

func ruleName(s string) string {
	if rule := ruleText(s, maxName); rule != "" {
		return rule
	}
	if !isAlnum(s[0]) || !only(s, "._-") {
		return "must be letters, digits and ._-, the first a letter or digit"
	}
	return ""
}

func ruleHost(s string) string {
	const rule = "must be a DNS name, an IPv4 address, or an IPv6 address without brackets"
	if r := ruleText(s, maxHost); r != "" {
		return r
	}
	if strings.IndexByte(s, ':') >= 0 {
		addr, err := netip.ParseAddr(s)
		if err != nil || len(addr.Zone()) > 15 || !only(addr.Zone(), "._-") {
			return rule
		}
		return ""
	}
	rest, label := s, ""
	for more := true; more; {
		label, rest, more = strings.Cut(rest, ".")
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || !only(label, "_-") {
			return rule
		}
	}
	// Resolvers read a name that ends in a number as an IPv4 address.
	if isDigits(label) {
		if _, err := netip.ParseAddr(s); err != nil {
			return rule
		}
	}
	return ""
}

func ruleUser(s string) string {
	if rule := ruleText(s, maxUser); rule != "" {
		return rule
	}
	if (!isAlnum(s[0]) && s[0] != '_') || !only(s, "_.@+-") {
		return "must be letters, digits and _.@+-, the first a letter, digit or underscore"
	}
	return ""
}

func rulePath(s string, home bool) string {
	if rule := ruleText(s, maxPath); rule != "" {
		return rule
	}
	switch {
	case s[0] == '/', home && strings.HasPrefix(s, "~/"):
		return ""
	case home:
		return "must be absolute or begin with ~/"
	}
	return "must be absolute"
}

// ruleBranch has the rules of git check-ref-format for refs/heads/<s>, and refuses the
// two names that git does not accept for a branch.
func ruleBranch(s string) string {
	const rule = "must be a branch name that git check-ref-format accepts"
	if r := ruleText(s, maxBranch); r != "" {
		return r
	}
	if s == "@" || s == "HEAD" || s[len(s)-1] == '.' ||
		strings.ContainsAny(s, " ~^:?*[\\") || strings.Contains(s, "..") || strings.Contains(s, "@{") {
		return rule
	}
	rest, part := s, ""
	for more := true; more; {
		part, rest, more = strings.Cut(rest, "/")
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return rule
		}
	}
	return ""
}

func ruleBackend(s string) string {
	const rule = "must name backends by lower-case letters, digits and ._-, the first a letter or digit"
	if s == "" || !isAlnum(s[0]) || !only(s, "._-") {
		return rule
	}
	if len(s) > maxBackendName {
		return fmt.Sprintf("must name backends in at most %d bytes", maxBackendName)
	}
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return rule
		}
	}
	return ""
}

// ExpandPath returns p with a leading ~ or ~/ replaced by home. Any other path is
// returned as it is. If home is "", a path with ~ is returned as it is too, and Validate
// refuses it. It reads neither the environment nor the disk.
func ExpandPath(home, p string) string {
	switch {
	case home == "":
		return p
	case p == "~":
		return home
	case strings.HasPrefix(p, "~/"):
		return path.Join(home, p[2:])
	}
	return p
}
