package vault

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"filippo.io/age"
)

// goldenKey never changes: root 00 01 02 ..., id a0 a1 a2 ...
func goldenKey() *Key {
	k := new(Key)
	for i := range k.root {
		k.root[i] = byte(i)
	}
	for i := range k.id {
		k.id[i] = byte(0xa0 + i)
	}
	return k
}

const goldenKeyLine = "rbk1:a0a1a2a3a4a5a6a7a8a9aaabacadaeaf:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f:" + goldenCheck

func TestKeyLineGolden(t *testing.T) {
	if line := string(goldenKey().line()); line != goldenKeyLine {
		t.Errorf("key line\n%s, want\n%s", line, goldenKeyLine)
	}
}

// TestDeriveAsOpenSSL: the commands in the manual give the same keys.
func TestDeriveAsOpenSSL(t *testing.T) {
	k := goldenKey()
	for _, purpose := range []string{purposeSQLCipher, purposeSeal, purposeCheck} {
		out, err := exec.Command("openssl", "kdf", "-keylen", "32",
			"-kdfopt", "digest:SHA256",
			"-kdfopt", "hexkey:"+hex.EncodeToString(k.root[:]),
			"-kdfopt", "hexsalt:"+k.id.String(),
			"-kdfopt", "info:rbee-vault/v1/"+purpose,
			"HKDF").CombinedOutput()
		if err != nil {
			t.Fatalf("openssl: %v: %s", err, out)
		}
		want := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(string(out)), ":", ""))
		if got := hex.EncodeToString(k.derive(purpose)); got != want {
			t.Errorf("%s: %s, openssl gives %s", purpose, got, want)
		}
	}
}

func TestParseKeyLineRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"empty":        "",
		"line break":   goldenKeyLine + "\n",
		"space":        " " + goldenKeyLine[1:],
		"other prefix": "rbk2" + goldenKeyLine[4:],
		"upper case":   "rbk1" + strings.ToUpper(goldenKeyLine[4:]),
		"cut":          goldenKeyLine[:len(goldenKeyLine)-1],
		"extra field":  goldenKeyLine[:len(goldenKeyLine)-2] + ":0",
		"other root":   strings.Replace(goldenKeyLine, "0001", "0002", 1),
		"other id":     strings.Replace(goldenKeyLine, "a0a1", "a0a0", 1),
		"other check":  goldenKeyLine[:len(goldenKeyLine)-1] + "0",
		"colons":       strings.Repeat(":", keyLineLen),
	} {
		if k, err := parseKeyLine([]byte(line)); !errors.Is(err, ErrInvalid) || k != nil {
			t.Errorf("%s: %v, %v; want nil, ErrInvalid", name, k, err)
		} else if strings.Contains(err.Error(), "0001") {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

func FuzzParseKeyLine(f *testing.F) {
	for _, seed := range []string{goldenKeyLine, string(generateKey().line()), goldenKeyLine[:40], "rbk1:::", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		k, err := parseKeyLine(line)
		if err != nil {
			if k != nil || !errors.Is(err, ErrInvalid) {
				t.Errorf("%v, %v; want nil, ErrInvalid", k, err)
			}
			return
		}
		if again := k.line(); !bytes.Equal(again, line) {
			t.Errorf("%q comes back as %q", line, again)
		}
	})
}

func TestSlotWraps(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k := goldenKey()
	s := Slot{ID: "0000000000000000", Kind: SlotRecipient, Recipient: identity.Recipient().String()}
	if err := s.wrap(t.Context(), k, nil); err != nil {
		t.Fatal(err)
	}
	got, err := s.unwrap(other, identity)
	if err != nil || *got != *k {
		t.Errorf("unwrapped %v, %v", got, err)
	}
	if _, _, err := unwrapAny([]Slot{s}, []age.Identity{other}); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another identity: %v, want ErrWrongKey", err)
	}
	broken := s
	broken.wrapped = strings.Replace(s.wrapped, "A", "B", 3)
	if k, by, err := unwrapAny([]Slot{broken, s}, []age.Identity{other, identity}); err != nil || by.identity != identity || by.slot.wrapped != s.wrapped || k.id != goldenKey().id {
		t.Errorf("a broken slot before a good one: %v", err)
	}
	if _, _, err := unwrapAny([]Slot{broken}, []age.Identity{identity}); !errors.Is(err, ErrWrongKey) {
		t.Errorf("a broken slot: %v, want ErrWrongKey", err)
	}
	// Stock age prints the key line and nothing else.
	cmd := exec.Command("age", "-d", "-i", "/dev/stdin", "-o", "-", "/dev/fd/3")
	cmd.Stdin = strings.NewReader(identity.String())
	cmd.ExtraFiles = append(cmd.ExtraFiles, pipe(t, s.wrapped))
	if out, err := cmd.Output(); err != nil || string(out) != goldenKeyLine {
		t.Errorf("age -d gives %d bytes, %v", len(out), err)
	}
}

func TestSeal(t *testing.T) {
	k := goldenKey()
	s := sealer{key: k.derive(purposeSeal), vaultID: goldenVaultID}
	sealed, err := s.seal(SealedSSHKey, "SHA256:x", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.seal(SealedSSHKey, "SHA256:x", []byte("plain")); err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealed twice alike, %v", err)
	}
	if plain, err := s.open(SealedSSHKey, "SHA256:x", sealed); err != nil || string(plain) != "plain" {
		t.Errorf("%q, %v", plain, err)
	}
	golden, err := hex.DecodeString(goldenSealed)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := s.open(SealedSSHKey, "SHA256:x", golden); err != nil || string(plain) != "plain" {
		t.Errorf("golden: %q, %v", plain, err)
	}
	refused := func(name string, s sealer, kind SealedKind, fingerprint string, sealed []byte) {
		t.Helper()
		if plain, err := s.open(kind, fingerprint, sealed); !errors.Is(err, ErrDamaged) || plain != nil {
			t.Errorf("%s: %q, %v; want ErrDamaged", name, plain, err)
		}
	}
	refused("another kind", s, SealedSigningKey, "SHA256:x", sealed)
	refused("another fingerprint", s, SealedSSHKey, "SHA256:y", sealed)
	refused("another vault", sealer{key: s.key, vaultID: "00000000-0000-4000-8000-000000000000"}, SealedSSHKey, "SHA256:x", sealed)
	refused("another key", sealer{key: generateKey().derive(purposeSeal), vaultID: s.vaultID}, SealedSSHKey, "SHA256:x", sealed)
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		refused("changed", s, SealedSSHKey, "SHA256:x", changed)
		refused("cut", s, SealedSSHKey, "SHA256:x", sealed[:i])
	}
	refused("longer", s, SealedSSHKey, "SHA256:x", append(bytes.Clone(sealed), 0))
	// Two different lists of fields never give the same additional data.
	if bytes.Equal(sealer{vaultID: "ab"}.additionalData("k", "c"), sealer{vaultID: "a"}.additionalData("k", "bc")) {
		t.Error("two places have the same additional data")
	}
}

func TestAuditRowGolden(t *testing.T) {
	r := goldenAuditRow()
	if sum := r.sum(); hex.EncodeToString(sum[:]) != goldenAuditHash {
		t.Errorf("hash %x, want %s", sum, goldenAuditHash)
	}
	// The same, built by hand.
	var b []byte
	b = append(b, 1)
	b = append(b, make([]byte, 32)...)
	for _, field := range []string{"1", "1700000000123", "ops(1000)@desk", "test", "node.add", "hive-01"} {
		b = append(b, 1, 0, 0, 0, byte(len(field)))
		b = append(b, field...)
	}
	b = append(b, 0, 0, 0, 0, 0)
	b = append(append(b, 1, 0, 0, 0, byte(len(goldenDigest))), goldenDigest...)
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != goldenAuditHash {
		t.Errorf("by hand %x, want %s", sum, goldenAuditHash)
	}
}

// several is an identity type of a caller. Its values cannot be compared.
type several struct{ identities []age.Identity }

func (s several) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	return s.identities[0].Unwrap(stanzas)
}

// TestSlotOpensByAnyIdentity: a caller may pass an identity of a type that this program does
// not know.
func TestSlotOpensByAnyIdentity(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s := Slot{ID: "0000000000000000", Kind: SlotRecipient, Recipient: id.Recipient().String()}
	if err := s.wrap(t.Context(), goldenKey(), nil); err != nil {
		t.Fatal(err)
	}
	k, _, err := unwrapAny([]Slot{s}, []age.Identity{several{[]age.Identity{id}}})
	if err != nil || *k != *goldenKey() {
		t.Errorf("%v", err)
	}
}

// TestRowHash: any tool can compute the HMAC of a row from the row's text.
func TestRowHash(t *testing.T) {
	key := make([]byte, 32)
	text := rowText("slots", "created", int64(1700000000123), "label", "it's", "identity", nil)
	if want := "slots|created='1700000000123'|label='it''s'"; string(text) != want {
		t.Errorf("text %q, want %q", text, want)
	}
	if sum := newRowHasher(key).hash(text); hex.EncodeToString(sum) != goldenRowHash {
		t.Errorf("hash %x, want %s", sum, goldenRowHash)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("slots|created='1700000000123'|label='it''s'"))
	if sum := mac.Sum(nil); hex.EncodeToString(sum) != goldenRowHash {
		t.Errorf("by hand %x, want %s", sum, goldenRowHash)
	}
}

// goldenAnchor is the format of an anchor. It never changes.
const goldenAnchor = "rba1:" + goldenVaultID + ":3:42:" + goldenAuditHash

func FuzzParseAnchor(f *testing.F) {
	f.Add(goldenAnchor)
	f.Add("rba1::0:0:" + strings.Repeat("0", 64))
	f.Add("rba1:x:01:+1:")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAnchor(s)
		if err == nil && a.String() != s || err != nil && (a != anchor{} || !errors.Is(err, ErrInvalid)) {
			t.Errorf("%q: %+v, %v", s, a, err)
		}
	})
}

func TestAnchorForm(t *testing.T) {
	a, err := parseAnchor(goldenAnchor)
	if err != nil || a.vaultID != goldenVaultID || a.generation != 3 || a.head.Seq != 42 {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestParseHex: lower-case digits of the right number, and nothing else.
func TestParseHex(t *testing.T) {
	for c := range 256 {
		for at := range 4 {
			text := []byte("09af")
			text[at] = byte(c)
			var got [2]byte
			ok := parseHex(got[:], string(text))
			want, err := hex.DecodeString(string(text))
			if valid := err == nil && !('A' <= c && c <= 'F'); ok != valid || ok && !bytes.Equal(got[:], want) {
				t.Errorf("%q: %x, %v", text, got, ok)
			}
		}
	}
	for _, text := range []string{"", "09a", "09aff", "09af09af"} {
		if parseHex(make([]byte, 2), text) {
			t.Errorf("%q is parsed as 2 bytes", text)
		}
	}
}
