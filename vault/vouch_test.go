package vault_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/plugintest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// holder is an identity that opens vaults, in the form in which its owner has it.
type holder struct {
	recipient string
	text      string // of the identity file, without comments
	pq        bool
	plugin    bool // it has no secret to vouch with
}

func holders(t *testing.T) map[string]holder {
	t.Helper()
	plugintest.Install(t)
	native, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	key := plugintest.NewKey(t, false)
	return map[string]holder{
		"native":      {recipient: native.Recipient().String(), text: native.String()},
		"hybrid":      {recipient: hybrid.Recipient().String(), text: hybrid.String(), pq: true},
		"ssh-ed25519": sshHolder(t, ed),
		"ssh-rsa":     sshHolder(t, big),
		"plugin":      {recipient: key.Recipient, text: key.Identity, plugin: true},
	}
}

func sshHolder(t *testing.T, key any) holder {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return holder{recipient: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), text: string(pem.EncodeToMemory(block))}
}

// identities parses the file, with comment lines before the identity.
func (h holder) identities(t *testing.T, comments string) []age.Identity {
	t.Helper()
	ids, err := identity.Parse(t.Context(), strings.NewReader(comments+h.text+"\n"), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func comment(m vault.Meta) string {
	return fmt.Sprintf("# vault id: %s\n# signer: %s\n", m.VaultID, m.SignerFingerprint())
}

// vaultOf makes a vault that the holder opens. If vouching is true, the identity is at hand
// when the vault is made. It returns the state of the vault then, and its state after
// rotations.
func vaultOf(t *testing.T, h holder, vouching bool, rotations int) (cfg vault.Config, first, now vault.Meta, old func(...string)) {
	t.Helper()
	cfg = vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Actor: "ops", Via: "test"}
	create := cfg
	if vouching {
		create.Identities = h.identities(t, "")
	}
	if _, err := vault.Create(t.Context(), create, vault.CreateOptions{Recipients: []string{h.recipient}, PostQuantum: h.pq}); err != nil {
		t.Fatal(err)
	}
	old = photograph(t, cfg)
	by := cfg
	by.Identities = h.identities(t, "")
	open := by
	open.ConfirmSigner = vaulttest.AcceptSigner
	if !vouching { // without storing a vouch
		open = by.ByAnySigner()
	}
	v := vaulttest.Open(t, open)
	first, _ = slotsOf(t, v)
	for range rotations {
		if _, err := v.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	now, _ = slotsOf(t, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return by, first, now, old
}

// TestVouching is the table of what vouches for a vault that an identity opens, for each kind
// of identity, after no rotation, one and three.
func TestVouching(t *testing.T) {
	all := holders(t)
	for name, h := range all {
		for _, rotations := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%s, %d rotations", name, rotations), func(t *testing.T) {
				t.Parallel()
				bare, first, now, _ := vaultOf(t, h, false, rotations)
				untouched, _, _, _ := vaultOf(t, h, false, rotations)
				vouched, vouchedFirst, vouchedNow, _ := vaultOf(t, h, true, rotations)
				forged := "# vault id: %s\n# signer: SHA256:" + strings.Repeat("A", 43) + "\n"
				other := "# vault id: 00000000-0000-4000-8000-000000000000\n# signer: SHA256:" + strings.Repeat("B", 43) + "\n"
				successor := error(nil)
				if rotations > 0 {
					successor = vault.ErrSuccessor
				}
				vouches := error(nil) // of the slot's own vouch
				if h.plugin {
					vouches = vault.ErrUnvouched
				}
				tests := []struct {
					name     string
					cfg      vault.Config
					comments string
					signer   string
					want     error
				}{
					{"nothing vouches", bare, "", "", vault.ErrUnvouched},
					{"--signer, current", bare, "", now.SignerFingerprint(), nil},
					{"--signer, as first", vouched, "", vouchedFirst.SignerFingerprint(), successor},
					{"--signer, another", vouched, "", now.SignerFingerprint(), vault.ErrForeignSigner},
					{"the slot vouches", vouched, "", "", vouches},
				}
				if !strings.HasPrefix(h.text, "-----BEGIN") { // an SSH key has no comments
					tests = append(tests, []struct {
						name     string
						cfg      vault.Config
						comments string
						signer   string
						want     error
					}{
						{"comments, current", vouched, comment(vouchedNow), "", nil},
						{"comments, as first", vouched, comment(vouchedFirst), "", nil},
						{"comments, another signer", vouched, fmt.Sprintf(forged, vouchedNow.VaultID), "", vault.ErrForeignSigner},
						{"comments of two blocks, one another's", vouched, comment(vouchedNow) + fmt.Sprintf(forged, vouchedNow.VaultID), "", vault.ErrForeignSigner},
						{"comments, another signer, but --signer", vouched, fmt.Sprintf(forged, vouchedNow.VaultID), vouchedNow.SignerFingerprint(), nil},
						{"comments of another vault, the slot vouches", vouched, other, "", vouches},
						{"comments of another vault, nothing else", bare, comment(first) + other, "", nil},
						{"comments of another vault alone", untouched, other, "", vault.ErrUnvouched},
					}...)
				}
				for _, test := range tests {
					cfg := test.cfg
					cfg.Identities, cfg.Signer = h.identities(t, test.comments), test.signer
					before := listing(t, cfg)
					err := openAndClose(t.Context(), cfg)
					if !errors.Is(err, test.want) || (err != nil) != (test.want != nil) {
						t.Errorf("%s: %v, want %v", test.name, err, test.want)
					}
					if err != nil && listing(t, cfg) != before {
						t.Errorf("%s: a refused open wrote something", test.name)
					}
					if errors.Is(err, vault.ErrSuccessor) {
						cfg.AcceptSuccessor = true
						if err := openAndClose(t.Context(), cfg); err != nil {
							t.Errorf("%s, --accept-successor: %v", test.name, err)
						}
					}
				}
				// What is left: the operator is asked, once.
				asked := 0
				answer, _, _, _ := vaultOf(t, h, false, rotations)
				answer.ConfirmSigner = func(context.Context, vault.Unvouched) error { asked++; return nil }
				for range 2 {
					if err := openAndClose(t.Context(), answer); err != nil {
						t.Error(err)
					}
				}
				if want := map[bool]int{true: 2, false: 1}[h.plugin]; asked != want {
					t.Errorf("asked %d times, want %d", asked, want)
				}
				answer.VaultID = first.VaultID
				if err := openAndClose(t.Context(), answer); !errors.Is(err, vault.ErrOtherVault) {
					t.Errorf("pinned: %v, want ErrOtherVault", err)
				}
			})
		}
	}
}

// TestStrangersVault: anybody who knows the recipient can make a vault that its identity opens.
// Such a vault does not open without a question, whatever its maker claims.
func TestStrangersVault(t *testing.T) {
	h := holders(t)["native"]
	mine, m, _, _ := vaultOf(t, h, true, 0)
	slots := vouchOf(t, mine)
	for _, test := range []struct {
		name     string
		vaultID  string // that the attacker claims
		vouch    string // that the attacker copies into the slot
		comments string // of the real vault's file
		want     error
	}{
		{"another id", "", "", "", vault.ErrUnvouched},
		{"another id, beside comments", "", "", comment(m), vault.ErrUnvouched},
		{"the true id", m.VaultID, "", "", vault.ErrUnvouched},
		{"the true id, against comments", m.VaultID, "", comment(m), vault.ErrForeignSigner},
		{"the true id and vouch", m.VaultID, slots, "", vault.ErrForeignSigner},
		{"a made-up vouch", "", strings.Repeat("ab", 32), "", vault.ErrForeignSigner},
	} {
		cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Actor: "x", Via: "x"}
		if err := vault.CreateForged(t.Context(), cfg, h.recipient, test.vaultID, test.vouch); err != nil {
			t.Fatal(err)
		}
		cfg.Identities = h.identities(t, test.comments)
		if err := openAndClose(t.Context(), cfg); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

// vouchOf reads the vouch of the only slot from the slots file.
func vouchOf(t *testing.T, cfg vault.Config) string {
	t.Helper()
	_, after, ok := bytes.Cut(read(t, cfg.Path+".slots"), []byte(`"vouch": "`))
	if !ok {
		t.Fatal("no vouch")
	}
	return string(after[:64])
}

// TestForgedChain: a binding or certificate was changed, removed or moved.
func TestForgedChain(t *testing.T) {
	h := holders(t)["native"]
	for name, change := range map[string]string{
		"binding removed":        `UPDATE vault_meta SET binding = ''`,
		"binding changed":        `UPDATE vault_meta SET binding = (SELECT certificate FROM signers WHERE generation = 2)`,
		"another vault's id":     `UPDATE vault_meta SET vault_id = '00000000-0000-4000-8000-000000000000'`,
		"another signer":         `UPDATE vault_meta SET signer = (SELECT public_key FROM signers WHERE generation = 1)`,
		"newest signer removed":  `DELETE FROM signers WHERE generation = 3`,
		"certificate removed":    `UPDATE signers SET certificate = NULL WHERE generation = 3`,
		"certificate of another": `UPDATE signers SET certificate = (SELECT certificate FROM signers WHERE generation = 2) WHERE generation = 3`,
		"vouch changed":          `UPDATE slots SET vouch = '` + strings.Repeat("0", 64) + `'`,
	} {
		cfg, first, _, _ := vaultOf(t, h, true, 2)
		open := cfg.ByAnySigner()
		v := vaulttest.Open(t, open)
		err := v.Update(t.Context(), func(tx *vault.Tx) error {
			if _, err := tx.ExecContext(t.Context(), change); err != nil {
				return err
			}
			return tx.Audit(t.Context(), vault.Event{Action: vault.Action("x")})
		})
		if err := errors.Join(err, v.Close()); err != nil {
			t.Fatal(name, err)
		}
		cfg.Identities = h.identities(t, "")
		err = openAndClose(t.Context(), cfg)
		if !errors.Is(err, vault.ErrDamaged) && !errors.Is(err, vault.ErrForeignSigner) {
			t.Errorf("%s: %v", name, err)
		}
		cfg.Identities = h.identities(t, comment(first))
		if err := openAndClose(t.Context(), cfg); err == nil && name != "vouch changed" {
			t.Errorf("%s: opened by comments of the first signer", name)
		}
	}
}

// TestFormerReader: a person who knew the signing key before a rotation can bind a vault of his
// own to it. If the current signer is known, from --signer or from comments, that is noticed.
// SECURITY.md says when it is not.
func TestFormerReader(t *testing.T) {
	h := holders(t)["native"]
	cfg, first, now, old := vaultOf(t, h, true, 1)
	old("", ".slots") // with the old key, its true binding and vouch
	for _, test := range []struct {
		name, comments, signer string
		want                   error
	}{
		{"--signer", "", now.SignerFingerprint(), vault.ErrForeignSigner},
		{"comments", comment(now), "", vault.ErrForeignSigner},
		{"--signer, old: not defended", "", first.SignerFingerprint(), nil},
		{"comments, old: not defended", comment(first), "", nil},
		{"the vouch: not defended", "", "", nil},
	} {
		cfg := cfg
		cfg.Identities, cfg.Signer = h.identities(t, test.comments), test.signer
		if err := openAndClose(t.Context(), cfg); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

func TestParseSheet(t *testing.T) {
	n := vault.NewIdentity{Kind: vault.SlotRecovery, Identity: "AGE-SECRET-KEY-1X", VaultID: "v", Signer: testSigner}
	for _, data := range [][]byte{n.File(), n.Sheet(), vault.SignerSheet(vault.Meta{VaultID: "v", Signer: testSigner}, nil)} {
		if got, err := vault.ParseSheet(data); err != nil || got != vault.Fingerprint(testSigner) {
			t.Errorf("%q, %v, from\n%s", got, err, data)
		}
	}
	// A page that was cut off names no other signer: it names none, or only the beginning of
	// the signer.
	whole := string(n.Sheet())
	for end := range whole {
		got, err := vault.ParseSheet([]byte(whole[:end]))
		if err != nil && !errors.Is(err, vault.ErrInvalid) || err == nil && !strings.HasPrefix(vault.Fingerprint(testSigner), got) {
			t.Errorf("cut after %d bytes: %q, %v", end, got, err)
		}
	}
	for _, bad := range []string{"", "# vault id: v\n", "# vault id: v\n# vault id: w\n# signer: a\n", "# signer: SHA256:x\n", "vault id: v\nsigner: SHA256:x\n", "# vault id: v\n# signer: a\n# vault id: v\n# signer: b\n"} {
		if got, err := vault.ParseSheet([]byte(bad)); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%q: %q, %v, want ErrInvalid", bad, got, err)
		}
	}
}

const testSigner = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3q0jxYwVmYQ3ZbC6aJFdBkjV6nYJq1hS5mFzQy0b3x"

// TestCutComments: comments that name the vault and, cut off, no signer do not fit, though
// the slot vouches.
func TestCutComments(t *testing.T) {
	h := holders(t)["native"]
	cfg, _, m, _ := vaultOf(t, h, true, 0)
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Fatalf("by its vouch: %v", err)
	}
	first, _, _ := strings.Cut(comment(m), "\n")
	cfg.Identities = h.identities(t, first+"\n")
	if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrForeignSigner) || !strings.Contains(err.Error(), "it was cut") {
		t.Errorf("%v, want ErrForeignSigner that says why", err)
	}
}
