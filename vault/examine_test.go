package vault_test

import (
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// found returns the finding of a check, or the first one that contains the text.
func found(t *testing.T, cfg vault.Config, opts vault.ExamineOptions, check, text string) vault.Finding {
	t.Helper()
	all, err := vault.Examine(t.Context(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if string(f.Check) == check && strings.Contains(f.Message, text) {
			return f
		}
	}
	t.Errorf("nothing of %q with %q in %+v", check, text, all)
	return vault.Finding{}
}

// TestExamineWell examines a vault without faults.
func TestExamineWell(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	for check, text := range map[string]string{
		"keyring item": "opens the vault",
		"key age":      "generation 1",
		"anchor":       "not behind",
		"slots":        "its secret was not offered",
		"pages":        "holds",
		"leftovers":    "none",
	} {
		if f := found(t, cfg, vault.ExamineOptions{}, check, text); f.Status != vault.FindingOK || f.Fix != "" {
			t.Errorf("%+v", f)
		}
	}
}

// TestExamineKeyAge: a key of two years gets a warning.
func TestExamineKeyAge(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	cfg.Now = func() time.Time { return time.Now().Add(731 * 24 * time.Hour) }
	if f := found(t, cfg, vault.ExamineOptions{}, "key age", "days old"); f.Status != vault.FindingWarn || f.Fix != "rbee-vault rotate" {
		t.Errorf("%+v", f)
	}
	v := vaulttest.Open(t, cfg)
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()
	if f := found(t, cfg, vault.ExamineOptions{}, "key age", "generation 2"); f.Status != vault.FindingOK {
		t.Errorf("%+v", f)
	}
}

// TestExamineKeyring: the item, the anchor, and items that nothing needs.
func TestExamineKeyring(t *testing.T) {
	cfg, k, identity := keyringVault(t)
	id := keyIDs(t, cfg.Path+".slots")[0]
	by := cfg
	by.Identities, by.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
	if err := k.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if f := found(t, by, vault.ExamineOptions{}, "keyring item", "has no key"); f.Status != vault.FindingFail || !strings.HasPrefix(f.Fix, "rbee-vault slot add keyring") {
		t.Errorf("%+v", f)
	}
	if f := found(t, cfg, vault.ExamineOptions{}, "keyring item", "has no key"); f.Status != vault.FindingFail {
		t.Errorf("where the vault does not open: %+v", f)
	}
	v := vaulttest.Open(t, by)
	if err := v.AddKeyring(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()

	old := photograph(t, cfg)
	node(t, cfg, "later")
	old("", ".slots")
	if f := found(t, by, vault.ExamineOptions{}, "anchor", "older copy"); f.Status != vault.FindingFail {
		t.Errorf("%+v", f)
	}
	accepting := cfg
	accepting.AcceptRollback = true
	if err := openAndClose(t.Context(), accepting); err != nil {
		t.Fatal(err)
	}

	// A slots file that was set aside names a key that no database has any more.
	write(t, cfg.Path+".slots.foreign-20260101T000000Z", []byte(strings.Replace(string(read(t, cfg.Path+".slots")), id, otherKeyID, 1)))
	if err := k.Set(t.Context(), otherKeyID, "an item"); err != nil {
		t.Fatal(err)
	}
	if f := found(t, cfg, vault.ExamineOptions{}, "keyring leftovers", otherKeyID); f.Status != vault.FindingWarn || !strings.HasSuffix(f.Fix, otherKeyID) {
		t.Errorf("%+v", f)
	}
}

// TestExamineOffers: each secret is tried on each slot, even if the vault does not open.
func TestExamineOffers(t *testing.T) {
	cfg, _, identity := keyringVault(t)
	opts := vault.ExamineOptions{Offers: []vault.Offer{{Name: "mine", Identities: []age.Identity{identity}}, {Name: "theirs", Identities: []age.Identity{newIdentity(t)}}}}
	for _, broken := range []bool{false, true} {
		if broken {
			cfg.Keyring = nil
		}
		if f := found(t, cfg, opts, "slots", "opens by mine"); f.Status != vault.FindingOK {
			t.Errorf("%+v", f)
		}
		if f := found(t, cfg, opts, "offered", "theirs"); f.Status != vault.FindingFail {
			t.Errorf("%+v", f)
		}
	}
}
