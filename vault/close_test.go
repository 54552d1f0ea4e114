package vault_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// closeBeside calls Close while the caller is inside a transaction. It returns
// when Close waits for that transaction, or is over.
func closeBeside(t *testing.T, v *vault.Vault, wg *sync.WaitGroup) (over <-chan struct{}) {
	t.Helper()
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		if err := v.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	for {
		// Who waits for the whole gate lets nobody else in.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		err := v.View(ctx, func(*vault.Tx) error { return nil })
		cancel()
		select {
		case <-done:
			return done
		default:
		}
		if err != nil {
			return done
		}
	}
}

// TestCloseWaitsForTransactions: a key that is sealed while Close is called is
// sealed under the vault's key, and what is read then is read to its end.
func TestCloseWaitsForTransactions(t *testing.T) {
	for name, begin := range map[string]func(*vault.Vault, context.Context, func(*vault.Tx) error) error{
		"View":   (*vault.Vault).View,
		"Update": (*vault.Vault).Update,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := vaulttest.Config(t)
			cfg.Wait = 20 * time.Millisecond
			v := vaulttest.Open(t, cfg)
			var wg sync.WaitGroup
			var sealed []byte
			err := begin(v, t.Context(), func(tx *vault.Tx) (err error) {
				over := closeBeside(t, v, &wg)
				if name == "Update" {
					if err := insertNode(t.Context(), tx, "hive-01"); err != nil {
						return err
					}
				}
				if sealed, err = tx.Seal(t.Context(), vault.SealedSSHKey, "SHA256:x", []byte("a key")); err != nil {
					return err
				}
				if _, err := tx.Meta(t.Context()); err != nil {
					return err
				}
				select {
				case <-over:
					t.Error("the vault was closed beside a transaction")
				default:
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			wg.Wait()
			for what, err := range map[string]error{
				"View":   v.View(t.Context(), func(*vault.Tx) error { return nil }),
				"Update": v.Update(t.Context(), func(*vault.Tx) error { return nil }),
				"Close":  v.Close(),
			} {
				if !errors.Is(err, vault.ErrClosed) {
					t.Errorf("%s afterwards: %v, want ErrClosed", what, err)
				}
			}
			v = vaulttest.Open(t, cfg)
			err = v.View(t.Context(), func(tx *vault.Tx) error {
				plain, err := tx.Unseal(t.Context(), vault.SealedSSHKey, "SHA256:x", sealed)
				if err == nil && string(plain) != "a key" {
					t.Errorf("unsealed %q", plain)
				}
				return err
			})
			if err != nil {
				t.Errorf("what was sealed beside Close: %v", err)
			}
		})
	}
}

// TestCloseBesideRotation: the rotation comes to its end, and the vault opens.
func TestCloseBesideRotation(t *testing.T) {
	cfg := vaulttest.Config(t)
	for range 5 {
		v := vaulttest.Open(t, cfg)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := v.Rotate(t.Context()); err != nil && !errors.Is(err, vault.ErrClosed) {
				t.Errorf("rotate: %v", err)
			}
		})
		if err := v.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		wg.Wait()
		vaulttest.Open(t, cfg).Close()
	}
}
