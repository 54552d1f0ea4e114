package keyringtest_test

import (
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// TestFaultKeyring: the keyring of the fault tests passes the contract.
func TestFaultKeyring(t *testing.T) {
	k := faulttest.Keyring{Dir: t.TempDir(), Steps: &faulttest.Steps{}}
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return k })
	if accounts, err := k.Accounts(); err != nil || len(accounts) > 0 {
		t.Errorf("left behind: %q, %v", accounts, err)
	}
}

// Apart from its fault, a Fake behaves like a real keyring.
func TestHonestFake(t *testing.T) {
	session := keyringtest.StartBus(t)
	keyringtest.StartFake(t, session.Address(), keyringtest.Honest)
	k := keyring.New(keyring.Config{Timeout: time.Minute})
	keyringtest.Contract(t, func(*testing.T) keyringtest.K { return k })
}
