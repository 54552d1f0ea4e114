package keyring

import "errors"

// Errors, all matched with [errors.Is]. None of them, and nothing wrapped around them,
// holds a value.
//
// ErrUnavailable is the umbrella: errors.Is(err, ErrUnavailable) holds for every error
// that says the keyring could not be asked or did not do what it was asked, that is for
// each of those below it here. It does not hold for ErrNotFound and ErrInvalidValue, nor
// for a context that ended. An error that is ErrUnavailable and none of the others is a
// refusal which no check explains; its text has the keyring's word for it.
var (
	// ErrNotFound: the keyring answered that it has no such item.
	ErrNotFound = errors.New("no such item in the keyring")
	// ErrInvalidValue: Set was given something else than one non-empty line of printable
	// ASCII. The keyring was not called.
	ErrInvalidValue = errors.New("value is not one line of printable ASCII")

	// ErrUnavailable: the keyring gave no usable answer; see above.
	ErrUnavailable = errors.New("keyring unavailable")

	// ErrNoBus: there is no session bus: no address, a stale one, or another user's.
	ErrNoBus error = unavailable("no D-Bus session bus")
	// ErrNoProvider: the session bus works, but no program offers a keyring on it and
	// none can be started.
	ErrNoProvider error = unavailable("no program offers a keyring (org.freedesktop.secrets) on the session bus")
	// ErrNoCollection: the keyring program has neither a collection "login" nor one that
	// is its default.
	ErrNoCollection error = unavailable("the keyring has no login or default collection")
	// ErrLocked: the collection is locked, and no prompt may be shown.
	ErrLocked error = unavailable("the keyring is locked")
	// ErrDismissed: the collection is locked, and the prompt to unlock it was dismissed,
	// or there was nothing to show it.
	ErrDismissed error = unavailable("the prompt to unlock the keyring was dismissed or could not be shown")
	// ErrTimeout: the keyring did not answer within the deadline, now or in an earlier
	// call on this Keyring.
	ErrTimeout error = unavailable("the keyring did not answer in time")
	// ErrReadBack: the keyring reported success for a Set, and the item is missing or
	// holds something else. Nothing reliable was stored.
	ErrReadBack error = unavailable("the keyring did not store the value it was given")
	// ErrNotDeleted: the keyring reported success for a Delete, and there still is an
	// item of that account, such as one that another program planted.
	ErrNotDeleted error = unavailable("the keyring still has such an item after deleting it")
	// ErrTooBig: the value is longer than MaxValue, or the keyring found the item too big.
	ErrTooBig error = unavailable("value is too big for a keyring")
	// ErrUnsupported: there is no keyring for this operating system.
	ErrUnsupported error = unavailable("no keyring is supported on this system")
)

// unavailable is a cause that also is ErrUnavailable, without carrying its text.
type unavailable string

func (u unavailable) Error() string        { return string(u) }
func (u unavailable) Is(target error) bool { return target == ErrUnavailable }
