package registry

import (
	"testing"
)

// TestCanonicalAddress: every spelling of an address has the same canonical form.
func TestCanonicalAddress(t *testing.T) {
	for in, want := range map[string]string{
		"Hive-01.Example.ORG":     "hive-01.example.org",
		"192.0.2.7":               "192.0.2.7",
		"0:0:0:0:0:0:0:1":         "::1",
		"2001:DB8::00A1":          "2001:db8::a1",
		"::ffff:192.0.2.7":        "192.0.2.7",
		"::FFFF:c000:0207":        "192.0.2.7",
		"fe80::1%Eth0":            "fe80::1%Eth0",
		"beef":                    "beef",
		"DEAD.beef.example":       "dead.beef.example",
		"\u212a.example.org":      "\u212a.example.org", // Kelvin, whose lower case is k
		"0:0:0:0:0:0:0:1.example": "0:0:0:0:0:0:0:1.example",
	} {
		if got := canonicalHost(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		if got := canonicalHost(want); got != want {
			t.Errorf("%q is not its own form: %q", want, got)
		}
	}
	r := newRegistry(t)
	n := bareNode("hive-01")
	n.SSHHost = "0:0:0:0:0:0:0:1"
	check(t, r.AddNode(t.Context(), n))
	check(t, r.UpdateNode(t.Context(), "hive-01", func(n *Node) error {
		if n.SSHHost != "::1" {
			t.Errorf("stored as %q", n.SSHHost)
		}
		n.SSHHost = "Other.Example.org"
		return nil
	}))
	got, err := r.GetNode(t.Context(), "hive-01")
	if err != nil || got.SSHHost != "other.example.org" {
		t.Errorf("%q, %v", got.SSHHost, err)
	}
}
