package vault_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestForeignPendingEntries: a slots file of another vault has a pending entry for that vault.
// This vault must not delete the key of that entry.
func TestForeignPendingEntries(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	other := vault.Config{Path: vaulttest.Dir(t) + "/beehives.db", Keyring: k}
	if _, err := vault.Create(t.Context(), other, vault.CreateOptions{Recipients: []string{otherRecipient}}); err != nil {
		t.Fatal(err)
	}
	foreign := bytes.Replace(read(t, other.Path+".slots"), []byte(`"state": "current"`), []byte(`"state": "pending"`), 1)
	write(t, cfg.Path+".slots", foreign)
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(t.Context(), other); err != nil {
		t.Errorf("the other vault: %v", err)
	}
}

// TestReplaceSettlesFirst: the vault that is set aside has its slots file, even if the one in
// place was lost.
func TestReplaceSettlesFirst(t *testing.T) {
	cfg, _, identity := keyringVault(t)
	if err := os.Remove(cfg.Path + ".slots"); err != nil {
		t.Fatal(err)
	}
	done, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{
		Replace: true,
		Fill: func(_ context.Context, tx *vault.Tx) (vault.Backup, error) {
			slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: identity.Recipient().String(), Created: tx.Now()}
			return vault.Backup{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !exists(done.Aside + ".slots") {
		t.Fatal("no identity opens what was set aside")
	}
	cfg.Path, cfg.Keyring, cfg.Identities, cfg.ConfirmSigner = done.Aside, nil, []age.Identity{identity}, vaulttest.AcceptSigner
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

// flipping is a file system that damages the copy of a migration.
type flipping struct{ durable.OS }

func (flipping) CreateNew(path string) (durable.File, error) {
	f, err := durable.OS{}.CreateNew(path)
	if err != nil || !strings.Contains(path, ".before-v") || strings.Contains(path, ".slots") {
		return f, err
	}
	return flippingFile{f}, nil
}

type flippingFile struct{ durable.File }

func (f flippingFile) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	p[len(p)/2] ^= 1
	return f.File.Write(p)
}

// TestMigrateVerifiesItsCopy: if the copy does not open, nothing is migrated.
func TestMigrateVerifiesItsCopy(t *testing.T) {
	cfg := vaulttest.Config(t)
	before := read(t, cfg.Path)
	next := nextSchema(cfg)
	next.FS = flipping{}
	if err := openAndClose(t.Context(), next); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("%v, want ErrDamaged", err)
	}
	if string(read(t, cfg.Path)) != string(before) {
		t.Error("the vault was changed")
	}
}
