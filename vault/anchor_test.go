package vault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// photograph copies the database and the slots file. The returned function puts them back.
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
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("node.add"), Subject: name})
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

// TestAnchor puts an older copy and its slots file in place, after each kind of change of a
// vault.
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
				// Two histories of the same vault. The anchor belongs to the first.
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

// TestAnchorAfterRotation: the keyring has no longer the old key. An attacker who also copied
// that item is still refused.
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
	// An open by identity does not ask the keyring. But a handle compares the anchor before it
	// writes it.
	by := cfg
	by.Identities, by.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
	v = vaulttest.Open(t, by)
	if err := v.AddKeyring(t.Context()); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("%v, want ErrRollback", err)
	}
	if _, err := v.Rotate(t.Context()); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("%v, want ErrRollback", err)
	}
	// A change by this handle must not hide from the keyring that the database is an older
	// copy.
	seen := anchorOf(t, k)
	addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient})
	v.Close()
	if anchorOf(t, k) != seen {
		t.Error("the anchor of a later state was overwritten")
	}
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

// TestAnchorOfAnotherVault: a slots file that names another vault does not hide this vault's
// anchor.
func TestAnchorOfAnotherVault(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	old := photograph(t, cfg)
	node(t, cfg, "later")
	old("", ".slots")
	vaultID := strings.Split(anchorOf(t, k), ":")[1]
	text := strings.Replace(string(read(t, cfg.Path+".slots")), vaultID, "00000000-0000-4000-8000-000000000000", 1)
	write(t, cfg.Path+".slots", []byte(text))
	if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("%v, want ErrRollback", err)
	}
}

// TestAnchorIsReadAgain: the anchor that was read with the key is used only for the open.
func TestAnchorIsReadAgain(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	v := vaulttest.Open(t, cfg)
	seen := anchorOf(t, k)
	if _, err := v.RemoveKeyring(t.Context()); err != nil {
		t.Fatal(err)
	}
	fields := strings.Split(seen, ":")
	fields[3] = "1000"
	if err := k.Set(t.Context(), fields[1]+"/anchor", strings.Join(fields, ":")); err != nil {
		t.Fatal(err)
	}
	if err := v.AddKeyring(t.Context()); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("%v, want ErrRollback", err)
	}
}

// TestAcceptedWithoutKeyring accepts a copy from before the keyring was an unlock method. The
// anchor of the other history must not refuse the vault later.
func TestAcceptedWithoutKeyring(t *testing.T) {
	cfg, k, identity := keyringVault(t)
	by := cfg
	by.Identities, by.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
	v := vaulttest.Open(t, by)
	if _, err := v.RemoveKeyring(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()
	old := photograph(t, cfg)
	v = vaulttest.Open(t, by)
	if err := v.AddKeyring(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()
	anchorOf(t, k) // there is one
	old("")
	if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) {
		t.Fatalf("%v, want ErrRollback", err)
	}
	accepting := cfg
	accepting.AcceptRollback = true
	if err := openAndClose(t.Context(), accepting); err != nil {
		t.Fatal(err)
	}
	accounts, err := k.Accounts()
	if err != nil || slices.ContainsFunc(accounts, func(a string) bool { return strings.HasSuffix(a, "/anchor") }) {
		t.Errorf("the keyring holds %v, %v: want no anchor", accounts, err)
	}
	// Without a slots file, the keyring is asked.
	if err := os.Remove(cfg.Path + ".slots"); err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

// TestAnchorIsMissingOrChanged: a missing anchor gives a warning and is written again. A
// changed item is not accepted as an anchor.
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

// TestAnchorCannotBeWritten: the change is still made, and the next open writes the anchor.
func TestAnchorCannotBeWritten(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	before := anchorOf(t, k)
	failing := cfg
	failing.Keyring = faulttest.Keyring{Dir: k.Dir, Steps: &faulttest.Steps{At: 2, Fault: faulttest.FailOnwards}}
	node(t, failing, "first")
	if anchorOf(t, k) != before {
		t.Fatal("the keyring did not fail")
	}
	// No process tries again at once. The state reports that.
	v := vaulttest.Open(t, cfg)
	state, err := v.Anchor(t.Context())
	if err != nil || state.BehindSince.IsZero() || state.Retry.IsZero() {
		t.Errorf("%+v, %v", state, err)
	}
	v.Close()
	if anchorOf(t, k) != before {
		t.Error("it was tried again at once")
	}
	cfg.Now = func() time.Time { return time.Now().Add(6 * time.Minute) }
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if now := anchorOf(t, k); now == before || !strings.Contains(now, ":1:2:") {
		t.Errorf("anchor %q", now)
	}
}

// TestAnchorFollows: a daemon's changes reach the anchor while the daemon runs, not only when
// it closes the vault. A kill loses at most one minute.
func TestAnchorFollows(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	cfg = cfg.WithAnchorDelay(time.Millisecond)
	v := vaulttest.Open(t, cfg)
	before := anchorOf(t, k)
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") }); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return anchorOf(t, k) != before })
	if state, err := v.Anchor(t.Context()); err != nil || !state.BehindSince.IsZero() {
		t.Errorf("%+v, %v", state, err)
	}
}

// TestAnchorFollowsSharedCommit: an urgent event is in the anchor when Update returns, whoever
// commits it.
func TestAnchorFollowsSharedCommit(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	cfg = cfg.WithAnchorDelay(time.Hour).WithShareTime(time.Minute)
	v := vaulttest.Open(t, cfg)
	before := anchorOf(t, k)
	urgent := func(ctx context.Context, tx *vault.Tx) error {
		return tx.Audit(ctx, vault.Event{Action: vault.UrgentAction("backup")})
	}
	for _, err := range together(t.Context(), v, adding("hive-01", nil), urgent, adding("hive-02", nil)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if anchorOf(t, k) == before {
		t.Error("the anchor does not follow")
	}
}

// TestAnchorNeedsNoWriteLock: the anchor is written while another process has a transaction.
func TestAnchorNeedsNoWriteLock(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	cfg = cfg.WithAnchorDelay(time.Millisecond)
	v := vaulttest.Open(t, cfg)
	before := anchorOf(t, k)
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") }); err != nil {
		t.Fatal(err)
	}
	lock := durable.NewLock(cfg.Path + ".write")
	if err := lock.Exclusive(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	await(t, func() bool { return anchorOf(t, k) != before })
}

func await(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen")
		}
	}
}

// TestReplacedVaultPutBack: the vault that a restore replaced opens at the path where it was
// set aside. It does not open in place, even with its keyring item and its slots file.
func TestReplacedVaultPutBack(t *testing.T) {
	s := newCrashSite(t, true)
	if err := create(t.Context(), s, &faulttest.Steps{}); err != nil {
		t.Fatal(err)
	}
	cfg := s.config(&faulttest.Steps{})
	old := photograph(t, cfg)
	if err := restoring(true)(t.Context(), s, &faulttest.Steps{}); err != nil {
		t.Fatal(err)
	}
	asides, err := filepath.Glob(cfg.Path + ".replaced-*Z")
	if err != nil || len(asides) != 1 {
		t.Fatal(asides, err)
	}
	aside := cfg
	aside.Path = asides[0]
	if err := openAndClose(t.Context(), aside); err != nil {
		t.Errorf("set aside: %v", err)
	}
	old("", ".slots")
	if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("put back: %v, want ErrRollback", err)
	}
	cfg.AcceptRollback = true
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	cfg.AcceptRollback = false
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Errorf("once it was accepted: %v", err)
	}
}

// TestKeyRotatedAway puts the files of an earlier generation in place, without its keyring
// item.
func TestKeyRotatedAway(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	old := photograph(t, cfg)
	v := vaulttest.Open(t, cfg)
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()
	old("", ".slots")
	if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("%v, want ErrRollback", err)
	}
}
