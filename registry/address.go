package registry

import "net/netip"

// canonicalHost gives a host the one form in which it is stored, compared and looked
// up: an IP address as netip writes it, an IPv4 address in IPv6 clothes as IPv4,
// which is where it leads; a name in lower case. What is neither stays for the rules
// to refuse.
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

// asciiLower leaves alone what is not ASCII: some of that has ASCII for its lower
// case.
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
