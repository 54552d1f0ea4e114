package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestSession goes on through a rotation by another process, and sees what that changed.
func TestSession(t *testing.T) {
	cfg := vaulttest.Config(t)
	s, err := vault.NewSession(t.Context(), func(ctx context.Context) (*vault.Vault, error) { return vault.Open(ctx, cfg) })
	if err != nil {
		t.Fatal(err)
	}
	meta := func() (m vault.Meta) {
		t.Helper()
		err := s.Use(t.Context(), func(v *vault.Vault) error {
			return v.View(t.Context(), func(tx *vault.Tx) (err error) {
				m, err = tx.Meta(t.Context())
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	before := meta()
	if out, err := child("rotate", childSpec(cfg, "1m")).Output(); err != nil {
		t.Fatalf("rotate beside a session: %v: %s", err, out)
	}
	if after := meta(); after.Generation != before.Generation+1 || after.KeyID == before.KeyID {
		t.Errorf("generation %d, then %d", before.Generation, after.Generation)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Use(t.Context(), func(*vault.Vault) error { return nil }); !errors.Is(err, vault.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// TestSessionUsersFinish: who uses the vault is waited for, and a rotation that cannot wait
// gives up.
func TestSessionUsersFinish(t *testing.T) {
	cfg := vaulttest.Config(t)
	s, err := vault.NewSession(t.Context(), func(ctx context.Context) (*vault.Vault, error) { return vault.Open(ctx, cfg) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Use(t.Context(), func(v *vault.Vault) error {
		if out, err := child("rotate", childSpec(cfg, "2500ms")).Output(); err == nil {
			t.Errorf("a rotation beside a user of the session: %s", out)
		}
		return v.View(t.Context(), func(*vault.Tx) error { return nil })
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSessionThatCannotReopen: the error reaches the next user, and a later one opens again.
func TestSessionThatCannotReopen(t *testing.T) {
	cfg := vaulttest.Config(t)
	fault := errors.New("nobody there")
	var fail atomic.Bool
	s, err := vault.NewSession(t.Context(), func(ctx context.Context) (*vault.Vault, error) {
		if fail.Load() {
			return nil, fault
		}
		return vault.Open(ctx, cfg)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fail.Store(true)
	if out, err := child("rotate", childSpec(cfg, "1m")).Output(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	use := func() error { return s.Use(t.Context(), func(*vault.Vault) error { return nil }) }
	await(t, func() bool { return errors.Is(use(), fault) })
	fail.Store(false)
	if err := use(); err != nil {
		t.Error(err)
	}
}

// rotateChild gives the vault a new key, within a time.
func rotateChild(arg string) {
	v, more := childVault(arg)
	limit, err := time.ParseDuration(more[0])
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		_, err = v.Rotate(ctx)
	}
	if err = errors.Join(err, v.Close()); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// TestSessionGivesWayToDestroy: a session gives way to every process that needs the vault
// alone, not only to a rotation.
func TestSessionGivesWayToDestroy(t *testing.T) {
	cfg := vaulttest.Config(t)
	s, err := vault.NewSession(t.Context(), func(ctx context.Context) (*vault.Vault, error) { return vault.Open(ctx, cfg) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if out, err := child("destroy", cfg.Path).Output(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := s.Use(t.Context(), func(*vault.Vault) error { return nil }); !errors.Is(err, vault.ErrNoVault) {
		t.Errorf("%v, want ErrNoVault", err)
	}
}

// destroyChild destroys the vault at the path.
func destroyChild(path string) {
	if _, err := vault.Destroy(context.Background(), vault.Config{Path: path}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
