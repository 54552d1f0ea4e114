// Package vaulttest makes throwaway vaults for tests.
package vaulttest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Dir returns a new directory that only its owner can enter, as a vault needs it.
func Dir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rbee")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Config makes a vault without a keyring. It returns the configuration that opens the vault,
// with one identity.
func Config(t testing.TB) vault.Config {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	cfg := vault.Config{
		Path:       filepath.Join(Dir(t), "beehives.db"),
		Identities: []age.Identity{identity},
		Actor:      "ops(1000)@desk",
		Via:        "test",
	}
	if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{Recipients: []string{identity.Recipient().String()}}); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// AcceptSigner accepts the signer of any vault. It is a [vault.Config.ConfirmSigner] whose
// operator says yes.
func AcceptSigner(context.Context, vault.Unvouched) error { return nil }

// Open opens a vault. When the test ends, the vault is closed if it is still open.
func Open(t testing.TB, cfg vault.Config) *vault.Vault {
	t.Helper()
	v, err := vault.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil && !errors.Is(err, vault.ErrClosed) {
			t.Error(err)
		}
	})
	return v
}

// New makes a vault without a keyring and opens it.
func New(t testing.TB) *vault.Vault {
	t.Helper()
	return Open(t, Config(t))
}
