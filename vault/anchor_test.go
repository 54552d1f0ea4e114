package vault_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// photograph copies database and slots file, and puts them back later.
func photograph(t *testing.T, cfg vault.Config) (putBack func(suffixes ...string)) {
	t.Helper()
	copies := map[string][]byte{}
	for _, suffix := range []string{"", ".slots"} {
		copies[suffix] = read(t, cfg.Path+suffix)
	}
	return func(suffixes ...string) {
		for _, suffix := range suffixes {
			write(t, cfg.Path+suffix, copies[suffix])
		}
	}
}

func node(t *testing.T, cfg vault.Config, name string) {
	t.Helper()
	v := vaulttest.Open(t, cfg)
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		if err := insertNode(t.Context(), tx, name); err != nil {
			return err
		}
		return tx.Audit(t.Context(), vault.Event{Action: "node.add", Subject: name})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func anchorOf(t *testing.T, k faulttest.Keyring) string {
	t.Helper()
	accounts, err := k.Accounts()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(accounts, func(a string) bool { return strings.HasSuffix(a, "/anchor") })
	if at < 0 {
		return ""
	}
	value, err := k.Get(t.Context(), accounts[at])
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestAnchor puts an older copy in place, with its slots file, in every way in
// which a vault goes on.
func TestAnchor(t *testing.T) {
	for name, goOn := range map[string]func(t *testing.T, cfg vault.Config, identity age.Identity){
		"a change": func(t *testing.T, cfg vault.Config, _ age.Identity) { node(t, cfg, "later") },
		"a slot": func(t *testing.T, cfg vault.Config, _ age.Identity) {
			v := vaulttest.Open(t, cfg)
			addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient})
			v.Close()
		},
		"a change by identity, seen by the keyring": func(t *testing.T, cfg vault.Config, identity age.Identity) {
			by := cfg
			by.Identities, by.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
			node(t, by, "later")
			if err := openAndClose(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		},
		"another change": func(t *testing.T, cfg vault.Config, _ age.Identity) {},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, k, identity := keyringVault(t)
			node(t, cfg, "first")
			old := photograph(t, cfg)
			goOn(t, cfg, identity)
			if name == "another change" {
				// Two histories of one vault: the anchor is that of the first.
				node(t, cfg, "one")
				seen := anchorOf(t, k)
				old("", ".slots")
				by := cfg
				by.Identities, by.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
				node(t, by, "other")
				if anchorOf(t, k) != seen {
					t.Error("the anchor was written without having been compared")
				}
			} else {
				old("", ".slots")
			}
			seen, file := anchorOf(t, k), read(t, cfg.Path+".slots")
			for range 2 {
				if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) {
					t.Fatalf("%v, want ErrRollback", err)
				}
			}
			if anchorOf(t, k) != seen || string(read(t, cfg.Path+".slots")) != string(file) {
				t.Error("a refused open changed something")
			}
			accepting := cfg
			accepting.AcceptRollback = true
			v := vaulttest.Open(t, accepting)
			if got := actions(t, v); got[len(got)-1] != "vault.accept-rollback" {
				t.Errorf("audited: %v", got)
			}
			v.Close()
			if err := openAndClose(t.Context(), cfg); err != nil {
				t.Errorf("once it was accepted: %v", err)
			}
		})
	}
}

// TestAnchorAfterRotation: the old key is gone from the keyring, but whoever
// copied its item as well is still refused.
func TestAnchorAfterRotation(t *testing.T) {
	cfg, k, identity := keyringVault(t)
	old := photograph(t, cfg)
	v := vaulttest.Open(t, cfg)
	m, _ := slotsOf(t, v)
	item, err := k.Get(t.Context(), m.KeyID.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()
	old("", ".slots")
	if err := k.Set(t.Context(), m.KeyID.String(), item); err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) || !strings.Contains(err.Error(), "generation 2") {
		t.Errorf("%v, want ErrRollback", err)
	}
	// By identity nobody asks the keyring; but what writes to it compares first.
	by := cfg
	by.Identities, by.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
	v = vaulttest.Open(t, by)
	if err := v.AddKeyring(t.Context()); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("%v, want ErrRollback", err)
	}
	if _, err := v.Rotate(t.Context()); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("%v, want ErrRollback", err)
	}
	v.Close()
	by.AcceptRollback = true
	v = vaulttest.Open(t, by)
	if err := v.AddKeyring(t.Context()); err != nil {
		t.Error(err)
	}
	v.Close()
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

// TestAnchorIsMissingOrChanged: the first is warned of and mended, the second is
// not taken for an anchor.
func TestAnchorIsMissingOrChanged(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	node(t, cfg, "first")
	good := anchorOf(t, k)
	account := strings.Split(good, ":")[1] + "/anchor"
	if err := k.Delete(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(t.Context(), cfg); err != nil || anchorOf(t, k) != good {
		t.Errorf("%v, anchor %q, want %q", err, anchorOf(t, k), good)
	}
	for _, bad := range []string{"garbage", strings.Replace(good, "rba1", "rba2", 1), good + ":", strings.Replace(good, good[5:9], "ffff", 1)} {
		if err := k.Set(t.Context(), account, bad); err != nil {
			t.Fatal(err)
		}
		if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) {
			t.Errorf("%q: %v, want ErrRollback", bad, err)
		}
	}
}

// TestAnchorCannotBeWritten: the change is made all the same, and the next open
// makes up for it.
func TestAnchorCannotBeWritten(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	before := anchorOf(t, k)
	failing := cfg
	failing.Keyring = faulttest.Keyring{Dir: k.Dir, Steps: &faulttest.Steps{At: 3, Blow: faulttest.FailOnwards}}
	node(t, failing, "first")
	if anchorOf(t, k) != before {
		t.Fatal("the keyring did not fail")
	}
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if now := anchorOf(t, k); now == before || !strings.Contains(now, ":1:2:") {
		t.Errorf("anchor %q", now)
	}
}
