package registry

import (
	"strconv"
	"strings"
)

const (
	ruleURLForm   = "must be an https, http, ssh, git or file URL, or [user@]host:path"
	ruleURLSecret = "must not contain a password or token, which every list of nodes would show"
)

// ruleGitURL returns the rule that s breaks as a git remote, or "". It accepts less
// than git does: no remote helpers, because ext:: runs commands, and no local paths.
func ruleGitURL(s string) string {
	if rule := ruleText(s, maxURL); rule != "" {
		return rule
	}
	if strings.ContainsAny(s, "?#") {
		return "must have no query and no fragment"
	}
	if !urlCharacters(s) {
		return "must have only the characters of a URL"
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return ruleSCP(s)
	}
	switch scheme {
	case "https", "http", "ssh", "git":
	case "file":
		if len(rest) < 2 || rest[0] != '/' {
			return ruleURLForm
		}
		return ""
	default:
		return ruleURLForm
	}
	authority, path, _ := strings.Cut(rest, "/")
	if path == "" {
		return ruleURLForm
	}
	host := authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		if rule := ruleURLUser(authority[:i]); rule != "" {
			return rule
		}
		host = authority[i+1:]
	}
	host, port, ok := cutPort(host)
	if !ok || ruleHost(host) != "" {
		return ruleURLForm
	}
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !isDigits(port) {
			return ruleURLForm
		}
	}
	return ""
}

// ruleSCP checks the form [user@]host:path. It refuses '@' after the colon, which
// would be user:password@host:path.
func ruleSCP(s string) string {
	user, host, path := "", s, ""
	if i := strings.IndexAny(s, "@:"); i >= 0 && s[i] == '@' {
		user, host = s[:i], s[i+1:]
		if rule := ruleURLUser(user); rule != "" {
			return rule
		}
	}
	if strings.HasPrefix(host, "[") {
		i := strings.Index(host, "]:")
		if i < 0 {
			return ruleURLForm
		}
		host, path = host[1:i], host[i+2:]
		if !strings.Contains(host, ":") {
			return ruleURLForm
		}
	} else {
		host, path, _ = strings.Cut(host, ":")
	}
	switch {
	case strings.ContainsRune(path, '@'):
		return ruleURLSecret
	case path == "", path[0] == '-', path[0] == ':', ruleHost(host) != "":
		return ruleURLForm
	}
	return ""
}

// cutPort splits host:port and removes the brackets of an IPv6 address.
func cutPort(s string) (host, port string, ok bool) {
	if !strings.HasPrefix(s, "[") {
		host, port, found := strings.Cut(s, ":")
		return host, port, !found || port != ""
	}
	i := strings.IndexByte(s, ']')
	if i < 0 || !strings.Contains(s[:i], ":") {
		return "", "", false
	}
	host, rest := s[1:i], s[i+1:]
	if rest == "" {
		return host, "", true
	}
	return host, rest[1:], rest[0] == ':' && len(rest) > 1
}

// ruleURLUser checks the part of a URL before '@'. Git hosts accept an access token
// as the user name, so a name that looks like a token is refused. User names of git
// hosts have at most 39 bytes.
func ruleURLUser(s string) string {
	if strings.Contains(s, ":") {
		return ruleURLSecret
	}
	if s == "" || (!isAlnum(s[0]) && s[0] != '_') || !only(s, "_.+-") {
		return ruleURLForm
	}
	if len(s) > 39 {
		return ruleURLSecret
	}
	for _, prefix := range [...]string{
		"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", // GitHub
		"glpat-", "gldt-", "glptt-", // GitLab
		"ATBB", "ATCTT", // Bitbucket
		"hf_", // Hugging Face
	} {
		if strings.HasPrefix(s, prefix) {
			return ruleURLSecret
		}
	}
	return ""
}

// urlCharacters reports whether s has only the characters of RFC 3986. After each
// '%' there must be two hex digits, which must not encode a control character.
func urlCharacters(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isAlnum(c), strings.IndexByte("-._~:/?#[]@!$&'()*+,;=", c) >= 0:
		case c == '%':
			if i+3 > len(s) {
				return false
			}
			b, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil || b < 0x20 || b == 0x7f {
				return false
			}
			i += 2
		default:
			return false
		}
	}
	return true
}
