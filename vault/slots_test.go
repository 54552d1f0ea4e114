package vault_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/plugintest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// openedBy opens the vault only by identities, whatever else cfg has.
func openedBy(t *testing.T, cfg vault.Config, identities ...age.Identity) error {
	t.Helper()
	cfg.Identities, cfg.ConfirmSigner = identities, vaulttest.AcceptSigner
	return openAndClose(t.Context(), cfg)
}

func addSlot(t *testing.T, v *vault.Vault, n vault.NewSlot) vault.Slot {
	t.Helper()
	s, err := v.AddSlot(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// passphrases returns each passphrase in turn, and counts the calls.
func passphrases(asked *int, answers ...string) identity.PassphraseFunc {
	return func(_ context.Context, _ string, attempt int) ([]byte, error) {
		*asked++
		if attempt > len(answers) {
			return nil, vault.ErrWrongKey
		}
		return []byte(answers[attempt-1]), nil
	}
}

func slotsOf(t *testing.T, v *vault.Vault) (m vault.Meta, slots []vault.Slot) {
	t.Helper()
	err := v.View(t.Context(), func(tx *vault.Tx) (err error) {
		if m, err = tx.Meta(t.Context()); err != nil {
			return err
		}
		slots, err = tx.Slots(t.Context())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, slots
}

// TestSlotKinds adds a slot of each kind, opens the vault by it, rotates, opens by it again,
// and removes it.
func TestSlotKinds(t *testing.T) {
	plugintest.Install(t)
	for _, class := range []identity.Class{identity.Classic, identity.PostQuantum} {
		t.Run(string(class), func(t *testing.T) {
			cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}
			recovery := filepath.Join(t.TempDir(), "recovery.txt")
			if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{RecoveryFile: recovery, PostQuantum: class == identity.PostQuantum}); err != nil {
				t.Fatal(err)
			}
			byRecovery := cfg
			byRecovery.Identities, byRecovery.ConfirmSigner = identitiesIn(recovery), vaulttest.AcceptSigner
			byRecovery = byRecovery.WithCheapPassphrases()
			v := vaulttest.Open(t, byRecovery)

			type added struct {
				slot vault.Slot
				opts func(vault.Config) vault.Config
			}
			ways := map[string]added{}
			identities := func(ids ...age.Identity) func(vault.Config) vault.Config {
				return func(cfg vault.Config) vault.Config {
					cfg.Identities, cfg.ConfirmSigner = ids, vaulttest.AcceptSigner
					return cfg
				}
			}
			fromFile := func(text string) func(vault.Config) vault.Config {
				path := filepath.Join(t.TempDir(), "identity")
				write(t, path, []byte(text))
				return identities(identitiesIn(path)...)
			}
			if class == identity.Classic {
				native := newIdentity(t)
				ways["native"] = added{addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: native.Recipient().String()}), identities(native)}
				for _, kind := range []string{"ed25519", "rsa"} {
					file := filepath.Join(t.TempDir(), "id")
					sshKeygen(t, "-t", kind, "-N", "", "-C", "ops@example.org", "-f", file)
					s := addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: string(read(t, file+".pub"))})
					if s.Label != "ops@example.org" {
						t.Errorf("label %q, want the key's comment", s.Label)
					}
					ways[kind] = added{s, identities(identitiesIn(file)...)}
				}
			} else {
				hybrid, err := age.GenerateHybridIdentity()
				if err != nil {
					t.Fatal(err)
				}
				ways["hybrid"] = added{addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: hybrid.Recipient().String()}), identities(hybrid)}
			}
			key := plugintest.NewKey(t, class == identity.PostQuantum)
			ways["plugin"] = added{addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: key.Recipient}), fromFile(key.Identity)}
			ways["plugin with a prompt"] = added{ways["plugin"].slot, func(cfg vault.Config) vault.Config {
				ui := &plugin.ClientUI{RequestValue: func(_, _ string, secret bool) (string, error) { return "1234", nil }}
				ids, err := identity.Parse(t.Context(), strings.NewReader(key.WithPIN), identity.Options{Plugins: ui})
				if err != nil {
					t.Fatal(err)
				}
				cfg.Identities, cfg.ConfirmSigner = ids, vaulttest.AcceptSigner
				return cfg
			}}
			asked := 0
			ways["passphrase"] = added{
				addSlot(t, v, vault.NewSlot{Kind: vault.SlotPassphrase, Passphrase: []byte("correct horse battery")}),
				func(cfg vault.Config) vault.Config {
					cfg.Passphrase = passphrases(&asked, "wrong", "correct horse battery")
					return cfg
				},
			}
			second := filepath.Join(t.TempDir(), "second.txt")
			sheet := filepath.Join(t.TempDir(), "sheet.txt")
			s := addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecovery, Label: "the safe", Files: []vault.IdentityFile{
				{Path: second},
				{Path: sheet, Encode: func(_ context.Context, n vault.NewIdentity) ([]byte, error) { return n.Sheet(), nil }},
			}})
			ways["recovery"] = added{s, identities(identitiesIn(second)...)}
			ways["sheet"] = added{s, identities(identitiesIn(sheet)...)}
			dir := vaulttest.Dir(t)
			ways["credential"] = added{
				addSlot(t, v, vault.NewSlot{Kind: vault.SlotCredential, Files: []vault.IdentityFile{{Path: filepath.Join(dir, "rbee-vault")}}}),
				func(cfg vault.Config) vault.Config {
					cfg.CredentialsDir = dir
					return cfg
				},
			}

			_, slots := slotsOf(t, v)
			for _, round := range []string{"as added", "rotated"} {
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
				for name, w := range ways {
					if err := openAndClose(t.Context(), w.opts(cfg)); err != nil {
						t.Errorf("%s, by %s: %v", round, name, err)
					}
				}
				v = vaulttest.Open(t, byRecovery)
				if round == "as added" {
					if _, err := v.Rotate(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if asked != 4 {
				t.Errorf("asked for the passphrase %d times, want twice for each opening", asked)
			}
			if _, rotated := slotsOf(t, v); fmt.Sprint(ids(rotated)) != fmt.Sprint(ids(slots)) {
				t.Errorf("slots %v after the rotation, %v before", ids(rotated), ids(slots))
			}
			for name, w := range ways {
				if err := v.RemoveSlot(t.Context(), w.slot.ID); err != nil && !errors.Is(err, vault.ErrNoSlot) {
					t.Errorf("remove %s: %v", name, err)
				}
			}
			v.Close()
			for name, w := range ways {
				if err := openAndClose(t.Context(), w.opts(cfg)); !errors.Is(err, vault.ErrWrongKey) && !errors.Is(err, vault.ErrNoUnlockMethod) {
					t.Errorf("by %s, which was removed: %v", name, err)
				}
			}
		})
	}
}

func ids(slots []vault.Slot) (ids []string) {
	for _, s := range slots {
		ids = append(ids, s.ID)
	}
	return ids
}

func sshKeygen(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", append([]string{"-q"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
}

func TestAddSlotRefuses(t *testing.T) {
	plugintest.Install(t)
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	_, slots := slotsOf(t, v)
	there := filepath.Join(t.TempDir(), "there")
	write(t, there, []byte("a file"))
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("not confirmed")
	before := read(t, cfg.Path+".slots")
	for name, test := range map[string]struct {
		slot vault.NewSlot
		want error
	}{
		"a second slot for a recipient":    {vault.NewSlot{Kind: vault.SlotRecipient, Recipient: slots[0].Recipient}, vault.ErrSlotExists},
		"post-quantum in a classic vault":  {vault.NewSlot{Kind: vault.SlotRecipient, Recipient: hybrid.Recipient().String()}, vault.ErrInvalid},
		"such a plugin":                    {vault.NewSlot{Kind: vault.SlotRecipient, Recipient: plugintest.NewKey(t, true).Recipient}, vault.ErrInvalid},
		"a private key":                    {vault.NewSlot{Kind: vault.SlotRecipient, Recipient: newIdentity(t).String()}, vault.ErrInvalid},
		"a plugin's private key":           {vault.NewSlot{Kind: vault.SlotRecipient, Recipient: plugintest.NewKey(t, false).Identity}, vault.ErrInvalid},
		"nonsense":                         {vault.NewSlot{Kind: vault.SlotRecipient, Recipient: "nonsense"}, vault.ErrInvalid},
		"a plugin that is not installed":   {vault.NewSlot{Kind: vault.SlotRecipient, Recipient: plugin.EncodeRecipient("rbeemissing", []byte{1})}, vault.ErrPlugin},
		"a plugin that fails":              {vault.NewSlot{Kind: vault.SlotRecipient, Recipient: plugin.EncodeRecipient("rbeetest", []byte("x"))}, vault.ErrPlugin},
		"no kind":                          {vault.NewSlot{}, vault.ErrInvalid},
		"an identity for nobody":           {vault.NewSlot{Kind: vault.SlotRecovery}, vault.ErrInvalid},
		"a file that is there":             {vault.NewSlot{Kind: vault.SlotRecovery, Files: []vault.IdentityFile{{Path: there}}}, vault.ErrFileExists},
		"the second file is there":         {vault.NewSlot{Kind: vault.SlotRecovery, Files: []vault.IdentityFile{{Path: there + ".txt"}, {Path: there}}}, vault.ErrFileExists},
		"a recovery that nobody confirmed": {vault.NewSlot{Kind: vault.SlotRecovery, Files: []vault.IdentityFile{{Path: there + ".txt"}}, Show: func(context.Context, vault.NewIdentity) error { return refused }}, refused},
		"an empty passphrase":              {vault.NewSlot{Kind: vault.SlotPassphrase}, vault.ErrInvalid},
		"too little work":                  {vault.NewSlot{Kind: vault.SlotPassphrase, Passphrase: []byte("x"), WorkFactor: 17}, vault.ErrInvalid},
		"too much work":                    {vault.NewSlot{Kind: vault.SlotPassphrase, Passphrase: []byte("x"), WorkFactor: 21}, vault.ErrInvalid},
	} {
		if _, err := v.AddSlot(t.Context(), test.slot); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if !bytes.Equal(read(t, cfg.Path+".slots"), before) || exists(there+".txt") || string(read(t, there)) != "a file" {
		t.Error("something was changed")
	}
	if got := actions(t, v); len(got) != 1 {
		t.Errorf("audited: %v", got)
	}
	if err := v.RemoveSlot(t.Context(), slots[0].ID); !errors.Is(err, vault.ErrLastSlot) {
		t.Errorf("the last one: %v, want ErrLastSlot", err)
	}
	if err := v.RemoveSlot(t.Context(), "0123456789abcdef"); !errors.Is(err, vault.ErrNoSlot) {
		t.Errorf("none: %v, want ErrNoSlot", err)
	}
	// Passphrase and credential slots do not count.
	v.Close()
	v = vaulttest.Open(t, cfg.WithCheapPassphrases())
	addSlot(t, v, vault.NewSlot{Kind: vault.SlotPassphrase, Passphrase: []byte("x")})
	addSlot(t, v, vault.NewSlot{Kind: vault.SlotCredential, Files: []vault.IdentityFile{{Path: there + ".credential"}}})
	if err := v.RemoveSlot(t.Context(), slots[0].ID); !errors.Is(err, vault.ErrLastSlot) {
		t.Errorf("the last durable one: %v, want ErrLastSlot", err)
	}
	if got := actions(t, v); fmt.Sprint(got) != "[vault.init slot.add slot.add]" {
		t.Errorf("audited: %v", got)
	}
}

// TestTaggedRecipients: age's own tagged keys, which are in hardware, are of the class that
// their labels say. Only a plugin opens them.
func TestTaggedRecipients(t *testing.T) {
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point := private.PublicKey().Bytes()
	compressed := append([]byte{2 + point[64]&1}, point[1:33]...)
	classic, err := tag.NewClassicRecipient(compressed)
	if err != nil {
		t.Fatal(err)
	}
	quantum, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := tag.NewHybridRecipient(append(quantum.EncapsulationKey().Bytes(), point...))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		postQuantum bool
		fits, not   string
	}{{false, classic.String(), hybrid.String()}, {true, hybrid.String(), classic.String()}} {
		cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}
		recovery := filepath.Join(t.TempDir(), "recovery.txt")
		_, err := vault.Create(t.Context(), cfg, vault.CreateOptions{RecoveryFile: recovery, PostQuantum: test.postQuantum, Recipients: []string{test.fits}})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Identities, cfg.ConfirmSigner = identitiesIn(recovery), vaulttest.AcceptSigner
		v := vaulttest.Open(t, cfg)
		if _, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: test.not}); !errors.Is(err, vault.ErrInvalid) || !strings.Contains(err.Error(), "one class") {
			t.Errorf("%.20s: %v, want ErrInvalid", test.not, err)
		}
		if _, err := v.Rotate(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestSlotsFileKeepsRoom: a rotation is possible with any number of slots.
func TestSlotsFileKeepsRoom(t *testing.T) {
	// Post-quantum recipients are long, so fewer of them fit.
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}
	recovery := filepath.Join(t.TempDir(), "recovery.txt")
	if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{RecoveryFile: recovery, PostQuantum: true}); err != nil {
		t.Fatal(err)
	}
	cfg.Identities, cfg.ConfirmSigner = identitiesIn(recovery), vaulttest.AcceptSigner
	v := vaulttest.Open(t, cfg)
	n := 0
	var err error
	for ; err == nil && n < 1000; n++ {
		var id *age.HybridIdentity
		if id, err = age.GenerateHybridIdentity(); err == nil {
			_, err = v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Label: strings.Repeat("l", 256), Recipient: id.Recipient().String()})
		}
	}
	if !errors.Is(err, vault.ErrInvalid) {
		t.Fatalf("after %d slots: %v, want ErrInvalid", n, err)
	}
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Errorf("rotate with %d slots: %v", n, err)
	}
	t.Logf("%d slots", n)
}

func TestFindSlot(t *testing.T) {
	slots := []vault.Slot{{ID: "0011223344556677", Label: "ops"}, {ID: "0011aa3344556677", Label: "dup"}, {ID: "ffffaa3344556677", Label: "dup"}}
	for name, want := range map[string]string{"0011223344556677": slots[0].ID, "ops": slots[0].ID, "ffff": slots[2].ID, "00112": slots[0].ID} {
		if s, err := vault.FindSlot(slots, name); err != nil || s.ID != want {
			t.Errorf("%s: %v, %v", name, s.ID, err)
		}
	}
	for name, want := range map[string]error{"dup": vault.ErrInvalid, "0011": vault.ErrInvalid, "fff": vault.ErrNoSlot, "": vault.ErrNoSlot} {
		if _, err := vault.FindSlot(slots, name); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
}

// TestPassphraseSlot: wrong passphrases, no answer, and a file with a work factor that is too
// high.
func TestPassphraseSlot(t *testing.T) {
	cfg := vaulttest.Config(t).WithCheapPassphrases()
	v := vaulttest.Open(t, cfg)
	addSlot(t, v, vault.NewSlot{Kind: vault.SlotPassphrase, Passphrase: []byte("secret")})
	v.Close()
	asked := 0
	without := cfg
	without.Identities = nil
	without.Passphrase = passphrases(&asked, "1", "2", "3", "secret")
	if err := openAndClose(t.Context(), without); !errors.Is(err, vault.ErrWrongKey) || asked != 3 {
		t.Errorf("%v, asked %d times, want ErrWrongKey after 3", err, asked)
	}
	asked = 0
	without.Passphrase = passphrases(&asked, "1")
	if err := openAndClose(t.Context(), without); !errors.Is(err, vault.ErrWrongKey) || asked != 2 {
		t.Errorf("%v, asked %d times, want ErrWrongKey after 2", err, asked)
	}
	refused := errors.New("nobody there")
	without.Passphrase = func(context.Context, string, int) ([]byte, error) { return nil, refused }
	if err := openAndClose(t.Context(), without); !errors.Is(err, refused) {
		t.Errorf("%v, want the refusal", err)
	}
	without.Passphrase = nil
	if err := openAndClose(t.Context(), without); !errors.Is(err, vault.ErrNoUnlockMethod) {
		t.Errorf("%v, want ErrNoUnlockMethod", err)
	}

	r, err := age.NewScryptRecipient("secret")
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(1)
	var text strings.Builder
	a := armor.NewWriter(&text)
	w, err := age.Encrypt(a, r)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(newIdentity(t).String()))
	w.Close()
	a.Close()
	// The header is not authenticated before the work is done.
	raw := decodeArmor(t, text.String())
	costly := encodeArmor(t, bytes.Replace(raw, []byte(" 1\n"), []byte(" 22\n"), 1))
	asked = 0
	ids, err := identity.Parse(t.Context(), strings.NewReader(costly), identity.Options{Passphrase: passphrases(&asked, "secret")})
	if err != nil {
		t.Fatal(err)
	}
	if err := openedBy(t, cfg, ids...); err == nil || !strings.Contains(err.Error(), "work factor too large") {
		t.Errorf("%v, want it refused for its work factor", err)
	}
}

func decodeArmor(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := b.ReadFrom(armor.NewReader(strings.NewReader(text))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encodeArmor(t *testing.T, data []byte) string {
	t.Helper()
	var b strings.Builder
	w := armor.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestKeyringSlot: a lost item is written again. A vault that had no item gets one. The item is
// deleted when the keyring is removed as an unlock method.
func TestKeyringSlot(t *testing.T) {
	cfg, k, identity := keyringVault(t)
	byIdentity := cfg
	byIdentity.Identities, byIdentity.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
	lose := func() {
		t.Helper()
		accounts, err := k.Accounts()
		if err != nil {
			t.Fatal(err)
		}
		for _, account := range accounts {
			if err := k.Delete(t.Context(), account); err != nil {
				t.Fatal(err)
			}
		}
	}
	lose()
	if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrWrongKey) {
		t.Fatalf("%v, want ErrWrongKey", err)
	}
	v := vaulttest.Open(t, byIdentity)
	if err := v.AddKeyring(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if accounts, _ := k.Accounts(); len(accounts) != 2 {
		t.Errorf("items %v, want the key and the anchor", accounts)
	}

	v = vaulttest.Open(t, byIdentity)
	left, err := v.RemoveKeyring(t.Context())
	if err != nil || len(left) > 0 {
		t.Fatalf("%v, left %v", err, left)
	}
	if _, err := v.RemoveKeyring(t.Context()); !errors.Is(err, vault.ErrNoSlot) {
		t.Errorf("again: %v, want ErrNoSlot", err)
	}
	v.Close()
	if accounts, _ := k.Accounts(); len(accounts) != 0 {
		t.Errorf("items %v are left", accounts)
	}
	never := byIdentity
	never.Keyring = forbidden{t}
	if err := openAndClose(t.Context(), never); err != nil {
		t.Error(err)
	}
	never.Identities = nil
	if err := openAndClose(t.Context(), never); !errors.Is(err, vault.ErrNoUnlockMethod) {
		t.Errorf("%v, want ErrNoUnlockMethod", err)
	}

	v = vaulttest.Open(t, byIdentity)
	if err := v.AddKeyring(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	// The keyring is lost for good: that is recorded and reported.
	gone := byIdentity
	gone.Keyring = nil
	v = vaulttest.Open(t, gone)
	left, err = v.RemoveKeyring(t.Context())
	if err != nil || len(left) != 2 {
		t.Errorf("%v, left %v, want both items named", err, left)
	}
	if err := v.AddKeyring(t.Context()); err == nil {
		t.Error("a keyring that is not there became an unlock method")
	}
}

// TestSlotsAreSeenByOthers: another handle, in another process, sees the change without being
// told. A daemon that has the vault open is not disturbed.
func TestSlotsAreSeenByOthers(t *testing.T) {
	cfg := vaulttest.Config(t)
	cmd := child("hold", childSpec(cfg))
	if lines := start(t, cmd); !lines.Scan() {
		t.Fatal("the child does not open the vault")
	}
	v := vaulttest.Open(t, cfg)
	identity := newIdentity(t)
	addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: identity.Recipient().String()})
	v.Close()
	if err := openedBy(t, cfg, identity); err != nil {
		t.Error(err)
	}
}
