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

	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// goldenKey never changes: root 00 01 02 ..., id a0 a1 a2 ...
func goldenKey() *Key {
	k, err := rootkey.ParseLine([]byte(goldenKeyLine))
	if err != nil {
		panic(err)
	}
	return k
}

const goldenKeyLine = "rbk1:a0a1a2a3a4a5a6a7a8a9aaabacadaeaf:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f:" + goldenCheck

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
	if k, by, err := unwrapAny([]Slot{broken, s}, []age.Identity{other, identity}); err != nil || by.identity != identity || by.slot.wrapped != s.wrapped || k.ID() != goldenKey().ID() {
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
	s := sealer{key: k.Derive(rootkey.Seal), vaultID: goldenVaultID}
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
	refused("another key", sealer{key: rootkey.Generate().Derive(rootkey.Seal), vaultID: s.vaultID}, SealedSSHKey, "SHA256:x", sealed)
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
	text := digest.RowText("slots", "created", int64(1700000000123), "label", "it's", "identity", nil)
	if want := "slots|created='1700000000123'|label='it''s'"; string(text) != want {
		t.Errorf("text %q, want %q", text, want)
	}
	if sum := digest.NewHasher(key).Hash(text); hex.EncodeToString(sum) != goldenRowHash {
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
