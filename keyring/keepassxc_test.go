package keyring_test

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// TestKeePassXC: the contract holds there too, and an item that is there is updated
// without a question, which nobody would answer here.
func TestKeePassXC(t *testing.T) {
	s := keyringtest.StartKeePassXC(t, false)
	k := keyring.New(keyring.Config{Timeout: long})
	if name, err := k.Provider(t.Context()); err != nil || !strings.HasPrefix(name, "keepassxc") {
		t.Fatalf("provider %q, %v", name, err)
	}
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return k })
	for _, v := range []string{"rbk1:first", "rbk1:second", "rbk1:third"} {
		if err := k.Set(t.Context(), account, v); err != nil {
			t.Fatal(err)
		}
		if got, err := k.Get(t.Context(), account); err != nil || got != v {
			t.Fatalf("%q, %v, want %q", got, err, v)
		}
	}
	s.RestartKeePassXC(t, "rbk1:third")
	k = keyring.New(keyring.Config{Timeout: long})
	if got, err := k.Get(t.Context(), account); err != nil || got != "rbk1:third" {
		t.Errorf("restarted: %q, %v", got, err)
	}
}

// TestKeePassXCConfirms: with its confirmations on and nobody there, an update is refused
// at once: nobody waits for a dialog.
func TestKeePassXCConfirms(t *testing.T) {
	keyringtest.StartKeePassXC(t, true)
	k := keyring.New(keyring.Config{Timeout: long})
	if err := k.Set(t.Context(), account, value); err != nil { // a new item asks nothing
		t.Fatal(err)
	}
	wantUnavailable(t, "a second Set", k.Set(t.Context(), account, value+"2"), keyring.ErrLocked)
}
