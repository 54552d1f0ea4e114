package vault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestOrderOfATransition: the order of calls that the guarantees need. Other calls may come
// between.
func TestOrderOfATransition(t *testing.T) {
	for name, commit := range map[string]string{
		"init": "link beehives.db", "restore": "link beehives.db", "replace": "rename beehives.db", "rotate": "rename beehives.db",
	} {
		t.Run(name, func(t *testing.T) {
			sc := scenarios[name]
			s, steps := sc.prepare(t), &faulttest.Steps{}
			if err := sc.run(t.Context(), s, steps); err != nil {
				t.Fatal(err)
			}
			names := steps.Names()
			at := slices.Index(names, commit)
			if at < 0 {
				t.Fatalf("no commit: %v", names)
			}
			before, after := names[:at], names[at+1:]
			// First the new database and its name are flushed, then the slots file, then the
			// keyring gets the key.
			rest := before
			for _, step := range []string{"rename beehives.db.slots", "sync beehives.db.new", "sync directory", "rename beehives.db.slots", "sync directory", "keyring set"} {
				i := slices.Index(rest, step)
				if i < 0 {
					t.Fatalf("no %q in its place before the commit: %v", step, before)
				}
				rest = rest[i+1:]
			}
			// The commit is durable before anything is swept or returned.
			if commit == "link beehives.db" {
				after = after[1:] // its other name is removed
			}
			if after[0] != "sync directory" {
				t.Errorf("behind the commit: %v", after)
			}
		})
	}
}

// TestSideFilesAtTheCommit: SQLite would replay a log beside the database in place into the new
// database, and destroy it.
func TestSideFilesAtTheCommit(t *testing.T) {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		cfg := vaulttest.Config(t)
		before := read(t, cfg.Path)
		v := vaulttest.Open(t, cfg)
		v.Close()
		_, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{
			Replace:         true,
			ConfirmUnproven: func(context.Context, vault.UnprovenVault) error { return nil },
			Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
				write(t, cfg.Path+suffix, []byte("of a program that ignores the locks"))
				slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: cfg.Identities[0].(*age.X25519Identity).Recipient().String(), Created: tx.Now()}
				return vault.Backup{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, nil
			},
		})
		if !errors.Is(err, vault.ErrLocked) || !strings.Contains(err.Error(), filepath.Base(cfg.Path)+suffix) {
			t.Errorf("%s: %v, want ErrLocked that names it", suffix, err)
		}
		os.Remove(cfg.Path + suffix)
		if string(read(t, cfg.Path)) != string(before) {
			t.Errorf("%s: the vault in place was changed", suffix)
		}
		if err := openAndClose(t.Context(), cfg); err != nil {
			t.Errorf("%s: %v", suffix, err)
		}
	}
}

// TestOwner: a file of any other user is refused.
func TestOwner(t *testing.T) {
	path := "/etc/hostname" // root's
	if os.Geteuid() == 0 {
		path = filepath.Join(vaulttest.Dir(t), "another's")
		write(t, path, nil)
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	insecure, ok := errors.AsType[*vault.InsecureError](vault.CheckPrivate(path))
	if !ok || !strings.Contains(insecure.Rule, "belongs to user") || !strings.Contains(insecure.Fix, "sudo") {
		t.Errorf("%+v, want an InsecureError", insecure)
	}
}
