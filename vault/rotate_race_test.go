package vault_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestRotateBesideEverything: rotations of one handle take turns. Calls at the same time do not
// fail and do not read what a rotation replaces; the race detector checks the latter. The calls
// share no context, because a context's lock would hide a missing lock of the vault.
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

// TestRevisionGrows: a revision after a rotation is greater than any before it, although SQLite
// starts to count again in a new file.
func TestRevisionGrows(t *testing.T) {
	v := vaulttest.New(t)
	revision := func() vault.Revision {
		r, err := v.Revision(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	revision() // from here on it is counted
	for n := range 5 {
		if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, fmt.Sprint("hive-", n)) }); err != nil {
			t.Fatal(err)
		}
	}
	before := revision()
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := revision(); !before.Before(after) || after.Before(before) {
		t.Errorf("%v, and after a rotation %v", before, after)
	}
}
