package registry

import "net/netip"

// canonicalHost returns the one form in which a host is stored, compared and looked
// up. An IP address is written as netip writes it. An IPv4-mapped IPv6 address
// becomes IPv4, because it leads to that address. A name is written in lower case.
// Whether the host is valid is not checked here.
func canonicalHost(s string) string {
	if s == "" || s[0] != ':' && !isHexDigit(s[0]) {
		return asciiLower(s)
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return asciiLower(s)
	}
	return addr.Unmap().String()
}

func isHexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// asciiLower is strings.ToLower for ASCII letters only: some other letters have
// ASCII letters as their lower case. It allocates only when s changes.
func asciiLower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
