package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

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
	begun := time.Now()
	go func() { checked <- v.CheckPages(t.Context()) }()
	writes := 0
	var longest time.Duration
	for n := 1500; ; n += 20 {
		select {
		case err := <-checked:
			if err != nil {
				t.Error(err)
			}
			took := time.Since(begun)
			t.Logf("%d writes in %s, the longest took %s", writes, took, longest)
			if writes < 5 || longest > took/2 {
				t.Errorf("%d writes while the pages were checked for %s, the longest took %s", writes, took, longest)
			}
			if err := v.CheckPages(t.Context()); err != nil {
				t.Error(err)
			}
			return
		default:
		}
		at := time.Now()
		if err := pad(t.Context(), v, n, n+20); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, time.Since(at))
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
