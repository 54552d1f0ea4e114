package agent

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
)

// TestPins: a bound connection lists and uses the keys of the nodes for which this host's
// key is pinned.
func TestPins(t *testing.T) {
	f := newFleet(t)
	one, two, stranger := newSigner(t), newSigner(t), newSigner(t)
	f.addNode(t, "hive-01", one.PublicKey())
	f.addNode(t, "hive-02", two.PublicKey())
	f.addNode(t, "hive-03", two.PublicKey())
	keys := map[string]ssh.PublicKey{
		"a": f.addKey(t, "a", "hive-01", "hive-02"), "b": f.addKey(t, "b", "hive-03"), "c": f.addKey(t, "c"),
	}
	a := f.start(t, nil)
	for name, row := range map[string]struct {
		host ssh.Signer
		want string
	}{
		"one": {one, "a"}, "two": {two, "a b"}, "stranger": {stranger, ""},
	} {
		c := a.dial(t)
		if !c.bind(row.host, "session", 0) {
			t.Fatalf("%s: the bind was refused", name)
		}
		list := c.list()
		slices.Sort(list)
		if got := strings.Join(list, " "); got != row.want {
			t.Errorf("%s: lists %q, want %q", name, got, row.want)
		}
		for comment, key := range keys {
			for _, hostKey := range [][]byte{nil, row.host.PublicKey().Marshal()} {
				want := slices.Contains(list, comment)
				if got := c.sign(key, login("session", key, hostKey).data(), 0); got != want {
					t.Errorf("%s signs with %s: %t", name, comment, got)
				}
			}
		}
	}
	peer := fmt.Sprint("; ", unixsocket.Peer{PID: pid(), Program: executable(t)})
	want := []string{
		`login to hive-01; user "ops"` + peer, `login to hive-02; user "ops"` + peer, `login to hive-03; user "ops"` + peer,
	}
	got := f.signed(t)
	slices.Sort(got)
	if got := slices.Compact(got); len(f.signed(t)) != 6 || !slices.Equal(got, want) {
		t.Errorf("audited %q, want each twice of %q", got, want)
	}

	// What is changed afterwards counts at the next request.
	c := a.dial(t)
	c.bind(one, "session", 0)
	c.list()
	if _, err := f.ForgetHostKeys(t.Context(), "", "hive-01"); err != nil {
		t.Fatal(err)
	}
	if list := c.list(); len(list) != 0 || c.sign(keys["a"], login("session", keys["a"], nil).data(), 0) {
		t.Errorf("a pin that was removed still counts: %q", list)
	}
}

// TestNotBound: without a bind, nothing is listed or signed.
func TestNotBound(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	c := f.start(t, nil).dial(t)
	if list := c.list(); len(list) != 0 {
		t.Errorf("lists %q", list)
	}
	for name, data := range map[string][]byte{
		"login": login("session", key, nil).data(),
		"bound": login("session", key, host.PublicKey().Marshal()).data(),
		"file":  fileData("git").data(),
	} {
		if c.sign(key, data, 0) {
			t.Errorf("%s: signed", name)
		}
	}
}

// TestBinds is about which binds are refused, and what they leave of the connection.
func TestBinds(t *testing.T) {
	f := newFleet(t)
	host, other := newSigner(t), newSigner(t)
	blob := host.PublicKey().Marshal()
	f.addNode(t, "hive-01", host.PublicKey(), rsaHost(t).PublicKey())
	key := f.addKey(t, "a", "hive-01")
	git := f.addKey(t, "git")
	a := f.start(t, func(c *Config) { c.AllowUnbound = []string{ssh.FingerprintSHA256(git)} })

	contents := func(change func(*bindRequest)) []byte {
		sig, err := host.Sign(rand.Reader, []byte("s1"))
		check(t, err)
		r := bindRequest{blob, []byte("s1"), ssh.Marshal(sig), 0}
		change(&r)
		return extension(extensionBind, ssh.Marshal(r))
	}
	good := func(session string) []byte { return bindMessage(t, blob, host, session, 0) }
	forward := func(session string) []byte { return bindMessage(t, blob, host, session, 1) }
	sha1, err := rsaHost(t).(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, []byte("s1"), ssh.KeyAlgoRSA)
	check(t, err)
	rsaBlob := rsaHost(t).PublicKey().Marshal()
	many := [][]byte{}
	for i := range maxBinds {
		many = append(many, forward(fmt.Sprint("session ", i)))
	}
	for _, row := range []struct {
		name   string
		before [][]byte // binds that succeed
		bind   []byte
		ok     bool
		usable bool // the connection lists and signs afterwards
	}{
		{"good", nil, good("s1"), true, true},
		{"longest session id", nil, good(strings.Repeat("s", maxSessionID)), true, false},
		{"RSA", nil, bindMessage(t, rsaBlob, rsaSHA2{rsaHost(t)}, "s1", 0), true, true},
		{"RSA with SHA-1", nil, contents(func(r *bindRequest) { r.HostKey, r.Signature = rsaBlob, ssh.Marshal(sha1) }), false, false},
		{"by another key", nil, bindMessage(t, blob, other, "s1", 0), false, false},
		{"over another session", nil, contents(func(r *bindRequest) { r.SessionID = []byte("s2") }), false, false},
		{"signature changed", nil, contents(func(r *bindRequest) { r.Signature[len(r.Signature)-1] ^= 1 }), false, false},
		{"signature longer", nil, contents(func(r *bindRequest) { r.Signature = append(r.Signature, 0) }), false, false},
		{"no signature", nil, contents(func(r *bindRequest) { r.Signature = nil }), false, false},
		{"no session id", nil, bindMessage(t, blob, host, "", 0), false, false},
		{"session id too long", nil, bindMessage(t, blob, host, strings.Repeat("s", maxSessionID+1), 0), false, false},
		{"no host key", nil, contents(func(r *bindRequest) { r.HostKey = nil }), false, false},
		{"host key longer", nil, contents(func(r *bindRequest) { r.HostKey = append(bytes.Clone(blob), 0) }), false, false},
		{"forwarding is no flag", nil, contents(func(r *bindRequest) { r.Forwarding = 2 }), false, false},
		{"bytes behind", nil, append(good("s1"), 0), false, false},
		{"cut", nil, good("s1")[:60], false, false},
		{"empty", nil, extension(extensionBind, nil), false, false},
		{"session id twice", [][]byte{forward("s1")}, good("s1"), false, false},
		{"after authentication", [][]byte{good("s1")}, good("s2"), false, false},
		{"forwarding after authentication", [][]byte{good("s1")}, forward("s2"), false, false},
		{"forwarding", nil, forward("s1"), true, false},
		{"forwarding, then authentication", [][]byte{forward("s2")}, good("s1"), true, false},
		{"many", many[:maxBinds-1], many[maxBinds-1], true, false},
		{"too many", many, good("s1"), false, false},
		{"after a refused one", [][]byte{nil}, good("s1"), true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := a.dial(t)
			for _, m := range row.before {
				if m == nil {
					c.bind(other, "", 0)
				} else if !c.succeeds(m) {
					t.Fatal("a bind before was refused")
				}
			}
			if ok := c.succeeds(row.bind); ok != row.ok {
				t.Errorf("bound: %t", ok)
			}
			if row.name == "longest session id" {
				return
			}
			for range 2 {
				if list := c.list(); len(list) > 0 != row.usable {
					t.Errorf("lists %q", list)
				}
				for _, session := range []string{"s1", "s2"} {
					want := row.usable && session == "s1"
					if ok := c.sign(key, login(session, key, nil).data(), 0); ok != want {
						t.Errorf("signs for %s: %t", session, ok)
					}
				}
				if c.sign(git, fileData("git").data(), 0) {
					t.Error("signs a file")
				}
				if c.succeeds(ssh.Marshal(lockMessage{Passphrase: []byte("x")})) {
					t.Fatal("locks")
				}
				if !row.usable && !strings.HasPrefix(row.name, "many") {
					c.succeeds(good(fmt.Sprint("again ", time.Now().UnixNano()))) // does not help
				}
			}
		})
	}
	if log := a.log.String(); !strings.Contains(log, "has a refused bind, or one for forwarding") || !strings.Contains(log, "is not by the host key") {
		t.Errorf("the log does not say why: %s", log)
	}
}

// TestCertificate: a host certificate counts as the key in it; the login names the
// certificate.
func TestCertificate(t *testing.T) {
	f := newFleet(t)
	host, ca := newSigner(t), newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	f.addNode(t, "hive-02", ca.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	f.addKey(t, "of the authority", "hive-02")
	a := f.start(t, nil)
	certificate := func(kind uint32) []byte {
		cert := &ssh.Certificate{Key: host.PublicKey(), CertType: kind, ValidBefore: ssh.CertTimeInfinity, ValidPrincipals: []string{"127.0.0.1"}}
		check(t, cert.SignCert(rand.Reader, ca))
		return cert.Marshal()
	}
	blob := certificate(ssh.HostCert)
	c := a.dial(t)
	if !c.succeeds(bindMessage(t, blob, host, "s1", 0)) {
		t.Fatal("the bind was refused")
	}
	if list := c.list(); !slices.Equal(list, []string{"a"}) {
		t.Errorf("lists %q", list)
	}
	if !c.sign(key, login("s1", key, blob).data(), 0) {
		t.Error("does not sign for the certificate")
	}
	if c.sign(key, login("s1", key, host.PublicKey().Marshal()).data(), 0) {
		t.Error("signs for the plain key, though the bind has the certificate")
	}
	if a.dial(t).succeeds(bindMessage(t, certificate(ssh.UserCert), host, "s1", 0)) {
		t.Error("a user's certificate is one of a host")
	}
	if a.dial(t).succeeds(bindMessage(t, blob, ca, "s1", 0)) {
		t.Error("the authority's signature is the host's")
	}
}
