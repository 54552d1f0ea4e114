package keyringtest_test

import (
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// TestFaultKeyring: the keyring of the fault tests is one.
func TestFaultKeyring(t *testing.T) {
	k := faulttest.Keyring{Dir: t.TempDir(), Steps: &faulttest.Steps{}}
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return k })
	if accounts, err := k.Accounts(); err != nil || len(accounts) > 0 {
		t.Errorf("left behind: %q, %v", accounts, err)
	}
}

// What a Fake does beside its fault is what a real keyring does.
func TestHonestFake(t *testing.T) {
	session := keyringtest.StartBus(t)
	keyringtest.StartFake(t, session.Address(), keyringtest.Honest)
	k := keyring.New(keyring.Config{Timeout: time.Minute})
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return k })
}
