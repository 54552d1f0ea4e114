package identity

import (
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// The errors of this package, to be compared with [errors.Is].
var (
	// ErrInvalid: an identity, a recipient or a passphrase breaks a rule that the
	// message names.
	ErrInvalid = wire.ErrInvalid
	// ErrWrongKey: an identity opens nothing of what it was tried on.
	ErrWrongKey = errors.New("wrong key")
	// ErrPassphrase: the passphrase was wrong, and another may be tried. It matches
	// [ErrWrongKey].
	ErrPassphrase = fmt.Errorf("%w: wrong passphrase", ErrWrongKey)
	// ErrNoWayIn: what would open it was not given.
	ErrNoWayIn = errors.New("no way in")
	// ErrPlugin: an age plugin is not installed, or failed.
	ErrPlugin = errors.New("age plugin failed")
)
