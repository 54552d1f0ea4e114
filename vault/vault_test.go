package vault_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func TestCreateAndOpen(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	ctx := t.Context()
	if err := v.Update(ctx, func(tx *vault.Tx) error { return addNode(ctx, tx, "hive-01") }); err != nil {
		t.Fatal(err)
	}
	count := func(v *vault.Vault) (n int) {
		err := v.View(ctx, func(tx *vault.Tx) error {
			return tx.QueryRowContext(ctx, `SELECT count(*) FROM beehives`).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(v); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = vaulttest.Open(t, cfg)
	if n := count(v); n != 1 {
		t.Errorf("%d rows after reopening, want 1", n)
	}
	if err := v.CheckPages(ctx); err != nil {
		t.Error(err)
	}
	err := v.View(ctx, func(tx *vault.Tx) error {
		_, err := tx.VerifyAudit(context.Background())
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(cfg.Path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, _ := e.Info()
		t.Log(info.Mode(), e.Name(), info.Size())
	}
}
