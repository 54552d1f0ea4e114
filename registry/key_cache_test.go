package registry

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestKeyCacheRow: a key that is kept signs only as long as its row is the same.
func TestKeyCacheRow(t *testing.T) {
	s := newSigning(t)
	check(t, s.sign(t))
	check(t, s.v.Update(t.Context(), func(tx *vault.Tx) error {
		if _, err := tx.ExecContext(t.Context(), `UPDATE ssh_keys SET private_key = zeroblob(99)`); err != nil {
			return err
		}
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("test")})
	}))
	if err := s.sign(t); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("%v with a key whose row is another one, want ErrDamaged", err)
	}
	if s.keys.Len() != 0 {
		t.Error("the key is still kept")
	}
	check(t, s.RemoveSSHKey(t.Context(), s.key.Fingerprint, true))
	if err := s.sign(t); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v with a key that was removed", err)
	}
}

// TestKeyCacheDropped: a key that is kept goes after its lifetime, with the vault, and when
// it is to be forgotten.
func TestKeyCacheDropped(t *testing.T) {
	s := newSigning(t)
	s.keys.Lifetime = 20 * time.Millisecond
	check(t, s.sign(t))
	for deadline := time.Now().Add(20 * time.Second); s.keys.Len() > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the key outlives its lifetime")
		}
	}
	s.keys.Lifetime = time.Hour
	check(t, s.sign(t))
	check(t, s.sign(t))
	if s.keys.Len() != 1 {
		t.Errorf("%d keys are kept", s.keys.Len())
	}
	s.keys.Forget()
	if s.keys.Len() != 0 {
		t.Error("a key is not forgotten")
	}
	check(t, s.sign(t))
	check(t, s.v.Close())
	if s.keys.Len() != 0 {
		t.Error("a key outlives the vault")
	}
}

// TestKeyCacheVaults: the keys of one vault are not those of another.
func TestKeyCacheVaults(t *testing.T) {
	s := newSigning(t)
	check(t, s.sign(t))
	other := New(vaulttest.New(t))
	key, err := other.GenerateSSHKey(t.Context(), "ed25519", "")
	check(t, err)
	pending, err := other.Sign(t.Context(), &s.keys, []SignatureRequest{{Signature: Signature{Fingerprint: key.Fingerprint, Namespace: "git"}}})
	check(t, err)
	if _, err := pending[0](); err != nil || s.keys.Len() != 1 {
		t.Errorf("%v; %d keys", err, s.keys.Len())
	}
}
