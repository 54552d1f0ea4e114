package vault_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// closeBeside calls Close while the caller is in a transaction. It returns when Close waits for
// that transaction, or has returned.
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
		// While a caller waits for the whole gate, nobody else enters.
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

// TestCloseWaitsForTransactions: a key that is sealed while Close is called is sealed under the
// vault's key. A read at that time is complete.
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
					if err := addNode(t.Context(), tx, "hive-01"); err != nil {
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

// TestCloseBesideRotation: the rotation is completed, and the vault opens.
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

// TestCloseDoesNotWaitForTheWriteLock: while another process holds the write lock, a handle
// that only read closes, and Open works.
func TestCloseDoesNotWaitForTheWriteLock(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	cfg.Wait = time.Hour
	cmd := child("still", cfg.Path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if lines := start(t, cmd); !lines.Scan() || lines.Text() != "holding" {
		t.Fatal("the child does not hold the lock")
	}
	done := make(chan error, 1)
	go func() {
		v, err := vault.Open(context.Background(), cfg)
		if err == nil {
			_, err = v.Revision(context.Background())
		}
		if err == nil {
			err = v.View(context.Background(), func(tx *vault.Tx) error {
				_, err := tx.VerifyAudit(context.Background())
				return err
			})
		}
		if err == nil {
			err = v.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for the write lock")
	}
}

// TestCloseWritesTheSlotsFile: if the slots file disappeared or changed while the vault was
// open, Close writes it again.
func TestCloseWritesTheSlotsFile(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":    os.Remove,
		"changed": func(path string) error { return os.WriteFile(path, []byte("{}"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := vaulttest.Config(t)
			v := vaulttest.Open(t, cfg)
			before := read(t, cfg.Path+".slots")
			if err := spoil(cfg.Path + ".slots"); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(read(t, cfg.Path+".slots"), before) {
				t.Error("the slots file is not what the table says")
			}
			vaulttest.Open(t, cfg).Close()
		})
	}
	// A file that was set aside stays unchanged.
	cfg := vaulttest.Config(t)
	aside := cfg
	aside.Path += ".replaced-20260101T000000Z"
	write(t, aside.Path, read(t, cfg.Path))
	write(t, aside.Path+".slots", read(t, cfg.Path+".slots"))
	v := vaulttest.Open(t, aside)
	if err := os.Remove(aside.Path + ".slots"); err != nil {
		t.Fatal(err)
	}
	v.Close()
	if exists(aside.Path + ".slots") {
		t.Error("the slots file of a file set aside was written")
	}
}

// TestRotateWithoutItsSlotsFile: a vault without a keyring lost its slots file while it was
// open. Then a rotation is interrupted at any step after its first write. The vault opens, by
// its old key or by its new one.
func TestRotateWithoutItsSlotsFile(t *testing.T) {
	run := func(steps *faulttest.Steps) (vault.Config, *faulttest.Steps) {
		cfg := vaulttest.Config(t)
		faulty := cfg
		faulty.FS = faulttest.FS{Steps: steps}
		v := vaulttest.Open(t, faulty)
		if err := os.Remove(cfg.Path + ".slots"); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Rotate(t.Context()); err != nil && steps.At == 0 {
			t.Fatal(err)
		}
		v.Close()
		return cfg, steps
	}
	_, counted := run(&faulttest.Steps{})
	first := 1 + slices.Index(counted.Names(), "rename beehives.db.slots")
	commit := 1 + slices.Index(counted.Names(), "rename beehives.db")
	if first < 1 || commit <= first {
		t.Fatalf("steps: %v", counted.Names())
	}
	for at := first + 1; at <= commit; at++ {
		cfg, steps := run(&faulttest.Steps{At: at, Fault: faulttest.FailOnwards}) // like a kill
		v, err := vault.Open(t.Context(), cfg)
		if err != nil {
			t.Errorf("step %d, %s: %v", at, steps.FaultStep(), err)
			continue
		}
		if err := v.Update(t.Context(), func(*vault.Tx) error { return nil }); err != nil {
			t.Errorf("step %d, %s: %v", at, steps.FaultStep(), err)
		}
		v.Close()
	}
}
