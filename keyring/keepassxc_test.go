package keyring_test

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// TestKeePassXC: KeePassXC passes the contract too. An existing item is updated without a
// question, which nobody would answer here.
func TestKeePassXC(t *testing.T) {
	keyringtest.StartKeePassXC(t, keyringtest.KeePassXC{})
	k := keyring.New(keyring.Config{Timeout: long})
	if name, err := k.Provider(t.Context()); err != nil || !strings.HasPrefix(name, "keepassxc") {
		t.Fatalf("provider %q, %v", name, err)
	}
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return k })
}

// TestKeePassXCRestarts: an item, and an update of it, are still there after a restart.
func TestKeePassXCRestarts(t *testing.T) {
	s := keyringtest.StartKeePassXC(t, keyringtest.KeePassXC{Save: true})
	for _, v := range []string{"rbk1:first", "rbk1:second"} {
		if err := keyring.New(keyring.Config{Timeout: long}).Set(t.Context(), account, v); err != nil {
			t.Fatal(err)
		}
		s.SaveKeePassXC(t, v)
		s.RestartKeePassXC(t)
		if got, err := keyring.New(keyring.Config{Timeout: long}).Get(t.Context(), account); err != nil || got != v {
			t.Errorf("restarted: %q, %v, want %q", got, err, v)
		}
	}
}

// TestKeePassXCConfirms: KeePassXC is set to confirm, and nobody is there. An update is refused
// at once and waits for no dialog.
func TestKeePassXCConfirms(t *testing.T) {
	keyringtest.StartKeePassXC(t, keyringtest.KeePassXC{Confirm: true})
	k := keyring.New(keyring.Config{Timeout: long})
	if err := k.Set(t.Context(), account, value); err != nil { // it does not ask about a new item
		t.Fatal(err)
	}
	wantUnavailable(t, "a second Set", k.Set(t.Context(), account, value+"2"), keyring.ErrLocked)
}
