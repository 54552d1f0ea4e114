package vault_test

import (
	"context"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// writesBesideView makes the first write of a handle while a View is running.
func writesBesideView(t *testing.T, cfg vault.Config) {
	t.Helper()
	v := vaulttest.Open(t, cfg)
	defer v.Close()
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		if _, err := tx.Meta(t.Context()); err != nil {
			return err
		}
		written := make(chan error)
		go func() {
			written <- v.Update(context.Background(), func(tx *vault.Tx) error { return addNode(context.Background(), tx, "beside") })
		}()
		return <-written
	})
	if err != nil {
		t.Errorf("the first write beside a View: %v", err)
	}
}

// TestFirstWriteBesideView: after every transition, also if it was killed right after its
// commit.
func TestFirstWriteBesideView(t *testing.T) {
	for _, name := range []string{"init without keyring", "restore", "replace", "rotate"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc := scenarios[name]
			ground := sc.prepare(t)
			s, counted := ground.copy(t), &faulttest.Steps{}
			if err := sc.run(t.Context(), s, counted); err != nil {
				t.Fatal(err)
			}
			writesBesideView(t, sc.config(s))
			commit := 1 + slices.IndexFunc(counted.Names(), func(step string) bool {
				return step == "rename beehives.db" || step == "link beehives.db"
			})
			s = ground.copy(t)
			s.killed(t, name, "", commit, faulttest.KillAfter)
			writesBesideView(t, sc.config(s))
		})
	}
}

// TestSettings reads the settings back on a connection of each kind.
func TestSettings(t *testing.T) {
	v := vaulttest.New(t)
	read := func(tx *vault.Tx) (got [6]string) {
		for i, pragma := range []string{"synchronous", "temp_store", "journal_mode", "foreign_keys", "mmap_size", "wal_autocheckpoint"} {
			if err := tx.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got[i]); err != nil {
				t.Error(err)
			}
		}
		return got
	}
	want := [6]string{"2", "2", "wal", "1", "0", "0"} // FULL, MEMORY
	for name, begin := range map[string]func(*vault.Vault, context.Context, func(*vault.Tx) error) error{
		"View":   (*vault.Vault).View,
		"Update": (*vault.Vault).Update,
	} {
		err := begin(v, t.Context(), func(tx *vault.Tx) error {
			if got := read(tx); got != want {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
