package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// pad writes rows of 16 KiB.
func pad(ctx context.Context, v *vault.Vault, from, to int) error {
	return v.Update(ctx, func(tx *vault.Tx) error {
		for i := from; i < to; i++ {
			name := fmt.Sprintf("pad-%d", i)
			if err := addNode(ctx, tx, name); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE beehives SET install_path = ? WHERE node_name = ?`, strings.Repeat("x", 16<<10), name); err != nil {
				return err
			}
		}
		return tx.Audit(ctx, vault.Event{Action: vault.Action("node.add"), Subject: "pads"})
	})
}

// TestCheckPagesBesideWriters: writers continue while the pages are checked, with checkpoints
// between their commits. That is not reported as damage.
func TestCheckPagesBesideWriters(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	if err := pad(t.Context(), v, 0, 1500); err != nil { // 24 MB
		t.Fatal(err)
	}
	checked := make(chan error)
	go func() { checked <- v.CheckPages(t.Context()) }()
	writes := 0
	for n := 1500; ; n += 20 {
		select {
		case err := <-checked:
			if err != nil {
				t.Error(err)
			}
			if writes < 3 { // one that waits for the whole check, and one behind it
				t.Errorf("%d writes while the pages were checked", writes)
			}
			if err := v.CheckPages(t.Context()); err != nil {
				t.Error(err)
			}
			return
		default:
		}
		if err := pad(t.Context(), v, n, n+20); err != nil {
			t.Fatal(err)
		}
		writes++
	}
}

// TestCheckPagesFindsDamage: also after the checkpoint that CheckPages makes.
func TestCheckPagesFindsDamage(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	if err := pad(t.Context(), v, 0, 20); err != nil {
		t.Fatal(err)
	}
	v.Close()
	data := read(t, cfg.Path)
	data[len(data)-5000] ^= 1
	if err := os.WriteFile(cfg.Path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	v = vaulttest.Open(t, cfg)
	if err := v.CheckPages(t.Context()); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("%v, want ErrDamaged", err)
	}
}
