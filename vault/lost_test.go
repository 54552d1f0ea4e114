package vault_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestLostParts removes or swaps each part of a vault that has been rotated, and opens the
// vault by the keyring and by identity. What can be repaired from the database is repaired, and
// then both methods open the vault. Otherwise nothing is written.
func TestLostParts(t *testing.T) {
	type site struct {
		cfg   vault.Config
		k     faulttest.Keyring
		old   func(suffixes ...string) // puts back the files from before the rotation
		other vault.Config             // another vault, in the same keyring
	}
	remove := func(t *testing.T, paths ...string) {
		t.Helper()
		for _, path := range paths {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	loseItem := func(t *testing.T, s site) {
		t.Helper()
		if err := s.k.Delete(t.Context(), keyIDs(t, s.cfg.Path+".slots")[0]); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		lose              func(t *testing.T, s site)
		keyring, identity error // of the first open by each method
		healed            bool  // repaired by the open that works
		foreign           bool  // a copy of the slots file was set aside
		message           string
	}{
		"keyring item": {lose: loseItem, keyring: vault.ErrWrongKey, message: "the vault opens by: 1 recipient"},
		"slots file": {lose: func(t *testing.T, s site) { remove(t, s.cfg.Path+".slots") },
			identity: vault.ErrNoUnlockMethod, message: "slots file is missing", healed: true},
		"slots file from before the last rotation": {lose: func(t *testing.T, s site) { s.old(".slots") },
			identity: vault.ErrUnknownKeyID, message: "an older copy", healed: true, foreign: true},
		"slots file of another vault": {lose: func(t *testing.T, s site) { write(t, s.cfg.Path+".slots", read(t, s.other.Path+".slots")) },
			identity: vault.ErrUnknownKeyID, message: "another vault's", healed: true, foreign: true},
		"slots file of garbage": {lose: func(t *testing.T, s site) { write(t, s.cfg.Path+".slots", []byte("{}")) },
			identity: vault.ErrNoUnlockMethod, message: "unreadable", healed: true, foreign: true},
		"keyring item of another vault": {lose: func(t *testing.T, s site) {
			item, err := s.k.Get(t.Context(), keyIDs(t, s.other.Path+".slots")[0])
			if err == nil {
				err = s.k.Set(t.Context(), keyIDs(t, s.cfg.Path+".slots")[0], item)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, keyring: vault.ErrWrongKey, message: "gave the key of id"},
		"database swapped for another vault's": {lose: func(t *testing.T, s site) {
			loseItem(t, site{cfg: s.other, k: s.k})
			write(t, s.cfg.Path, read(t, s.other.Path))
		}, keyring: vault.ErrUnknownKeyID, identity: vault.ErrUnknownKeyID, message: "the slots file names"},
		"database swapped for its own older copy": {lose: func(t *testing.T, s site) { s.old("") },
			keyring: vault.ErrUnknownKeyID, identity: vault.ErrUnknownKeyID, message: "an older copy"},
		"database and slots file swapped for older copies": {lose: func(t *testing.T, s site) { s.old("", ".slots") },
			keyring: vault.ErrRollback},
		"keyring item and slots file": {lose: func(t *testing.T, s site) { loseItem(t, s); remove(t, s.cfg.Path+".slots") },
			keyring: vault.ErrWrongKey, identity: vault.ErrNoUnlockMethod, message: "only a backup can bring the vault back"},
		"database": {lose: func(t *testing.T, s site) { remove(t, s.cfg.Path) },
			keyring: vault.ErrMissing, identity: vault.ErrMissing, message: "there is a slots file"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, k, identity := keyringVault(t)
			s := site{cfg: cfg, k: k}
			s.other = vault.Config{Path: vaulttest.Dir(t) + "/beehives.db", Keyring: k}
			if _, err := vault.Create(t.Context(), s.other, vault.CreateOptions{Recipients: []string{newIdentity(t).Recipient().String()}}); err != nil {
				t.Fatal(err)
			}
			v := vaulttest.Open(t, cfg)
			withKeys(t, v, "hive-01")
			v.Close()
			s.old = photograph(t, cfg)
			v = vaulttest.Open(t, cfg)
			if _, err := v.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			v.Close()
			test.lose(t, s)

			byIdentity := cfg
			byIdentity.Identities, byIdentity.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
			left := listing(t, cfg)
			said := ""
			for _, way := range []struct {
				cfg  vault.Config
				want error
			}{{byIdentity, test.identity}, {cfg, test.keyring}} {
				err := openAndClose(t.Context(), way.cfg)
				if !errors.Is(err, way.want) {
					t.Errorf("%v, want %v", err, way.want)
				}
				if err != nil {
					said += err.Error() + "\n"
					if now := listing(t, cfg); now != left {
						t.Errorf("a refused open wrote something")
					}
				}
				left = listing(t, cfg) // an open that is accepted may write
			}
			if !strings.Contains(said, test.message) {
				t.Errorf("nobody says %q:\n%s", test.message, said)
			}
			if test.healed {
				for _, way := range []vault.Config{byIdentity, cfg} {
					if err := openAndClose(t.Context(), way); err != nil {
						t.Errorf("not healed: %v", err)
					}
				}
			}
			if copies := foreignCopies(t, cfg); (len(copies) == 1) != test.foreign {
				t.Errorf("set aside: %v", copies)
			}
		})
	}
}

// listing returns the names and contents of a vault's files.
func listing(t *testing.T, cfg vault.Config) string {
	t.Helper()
	entries, err := os.ReadDir(strings.TrimSuffix(cfg.Path, "/beehives.db"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Name() + " " + string(read(t, strings.TrimSuffix(cfg.Path, "beehives.db")+e.Name())) + "\n")
	}
	return b.String()
}
