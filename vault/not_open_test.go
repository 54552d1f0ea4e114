package vault_test

import (
	"errors"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func TestCheckNotOpen(t *testing.T) {
	cfg := vaulttest.Config(t)
	if err := vault.CheckNotOpen(cfg.Path); err != nil {
		t.Error(err)
	}
	v := vaulttest.Open(t, cfg)
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") }); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := vault.CheckNotOpen(cfg.Path + suffix); !errors.Is(err, vault.ErrAlreadyOpen) {
			t.Errorf("%q: %v, want ErrAlreadyOpen", suffix, err)
		}
	}
	if err := vault.CheckNotOpen(cfg.Path + ".slots"); err != nil {
		t.Error(err)
	}
}
