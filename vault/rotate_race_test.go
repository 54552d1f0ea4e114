package vault_test

import (
	"context"
	"sync"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestRotateBesideEverything: rotations of one handle take turns, and what is asked beside
// them neither fails nor reads what they replace. The race detector sees the latter. No
// context is shared: its lock would order what the vault's own must.
func TestRotateBesideEverything(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	v, err := vault.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := v.Rotate(context.Background()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			for range 200 {
				if _, err := v.Anchor(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
