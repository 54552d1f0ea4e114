package identity

import (
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// The errors of this package, to be compared with [errors.Is].
var (
	// ErrInvalid: an identity, a recipient or a passphrase breaks a rule. The message names the
	// rule.
	ErrInvalid = wire.ErrInvalid
	// ErrWrongKey: an identity opens nothing that it was tried on.
	ErrWrongKey = errors.New("wrong key")
	// ErrPassphrase: the passphrase was wrong. Another one may be tried. It matches
	// [ErrWrongKey].
	ErrPassphrase = fmt.Errorf("%w: wrong passphrase", ErrWrongKey)
	// ErrNoUnlockMethod: nothing that could open it was given.
	ErrNoUnlockMethod = errors.New("no unlock method")
	// ErrPlugin: an age plugin is not installed, or failed.
	ErrPlugin = errors.New("age plugin failed")
)
