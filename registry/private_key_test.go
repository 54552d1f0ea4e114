package registry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// opensshFile writes an ed25519 key as ssh-keygen does, with the three given public
// halves: at the start, beside the private key, and in its last 32 bytes.
func opensshFile(t testing.TB, seed, outer, inner, last ed25519.PublicKey) []byte {
	t.Helper()
	blob := func(key ed25519.PublicKey) []byte {
		public, err := ssh.NewPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return public.Marshal()
	}
	private := ssh.Marshal(struct {
		Check1, Check2 uint32
		Type           string
		Public         []byte
		Private        []byte
		Comment        string
	}{7, 7, ssh.KeyAlgoED25519, inner, append(bytes.Clone(seed), last...), "c"})
	for pad := byte(1); len(private)%8 != 0; pad++ {
		private = append(private, pad)
	}
	body := append([]byte("openssh-key-v1\x00"), ssh.Marshal(opensshKey{
		CipherName:   "none",
		KdfName:      "none",
		NumKeys:      1,
		PubKey:       blob(outer),
		PrivKeyBlock: private,
	})...)
	return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: body})
}

// TestForgedHalves: a key file that states another key's public half must not get the
// fingerprint of that key.
func TestForgedHalves(t *testing.T) {
	mine, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	victim, _, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	seed := ed25519.PublicKey(private.Seed())
	keyOf := func(key ed25519.PublicKey) SSHKey {
		public, err := ssh.NewPublicKey(key)
		check(t, err)
		return SSHKey{Type: public.Type(), PublicKey: publicKeyLine(public), Fingerprint: ssh.FingerprintSHA256(public)}
	}
	for name, test := range map[string]struct {
		outer, inner, last ed25519.PublicKey
		ok                 bool
	}{
		"whole":                {mine, mine, mine, true},
		"in front":             {victim, mine, mine, false},
		"beside":               {mine, victim, mine, false},
		"in the key itself":    {mine, mine, victim, false},
		"everywhere":           {victim, victim, victim, false},
		"beside and in itself": {mine, victim, victim, false},
	} {
		file := opensshFile(t, seed, test.outer, test.inner, test.last)
		k, err := ParsePrivateKey(t.Context(), file, PrivateKeyOptions{})
		if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: parsed: %v, %v", name, k, err)
		}
		for _, claimed := range []SSHKey{keyOf(mine), keyOf(victim)} {
			want := test.ok && claimed.PublicKey == keyOf(mine).PublicKey
			if err := claimed.Matches(file); (err == nil) != want || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: matches %s: %v", name, claimed.Fingerprint, err)
			}
		}
	}
}

func FuzzParsePrivateKey(f *testing.F) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	check(f, err)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	check(f, err)
	keys := []any{ed, weak}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		check(f, err)
		keys = append(keys, k)
	}
	for _, k := range keys {
		block, err := ssh.MarshalPrivateKey(k, "c")
		check(f, err)
		f.Add(pem.EncodeToMemory(block))
		pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
		check(f, err)
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)}))
	f.Add([]byte("PuTTY-User-Key-File-3: ssh-ed25519\n"))
	f.Add([]byte("ssh-ed25519-cert-v01@openssh.com AAAA"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParsePrivateKey(t.Context(), data, PrivateKeyOptions{AllowWeak: true})
		if (err == nil) == (k == nil) {
			t.Fatalf("%v, %v", k, err)
		}
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, vault.ErrNoUnlockMethod) {
				t.Fatalf("%v", err)
			}
			return
		}
		// An accepted key must sign in any program, and have its fingerprint there.
		signer, err := ssh.ParsePrivateKey(k.pem)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := signer.Sign(rand.Reader, data)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.public.Verify(data, signature); err != nil || ssh.FingerprintSHA256(k.public) != k.Fingerprint() {
			t.Fatalf("%s: %v", k.Fingerprint(), err)
		}
		stored := SSHKey{Fingerprint: k.Fingerprint(), Type: k.public.Type(), PublicKey: publicKeyLine(k.public)}
		if err := stored.Matches(k.pem); err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(k.pem)
		if file, ok := parseOpenSSH(block); !ok || !bytes.Equal(file.PubKey, k.public.Marshal()) {
			t.Fatal("another public half stands in front")
		}
	})
}

// TestWeakRSA: an RSA key of 2048 bits is accepted only with AllowWeak.
func TestWeakRSA(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	for allow, want := range map[bool]error{false: ErrWeakKey, true: nil} {
		_, err := ParsePrivateKey(t.Context(), pem.EncodeToMemory(block), PrivateKeyOptions{AllowWeak: allow})
		if !errors.Is(err, want) {
			t.Errorf("allowed: %t: %v", allow, err)
		}
	}
}
