package keyring

import "errors"

// Errors, to be compared with [errors.Is]. No error contains a value, and no error that wraps
// one does.
//
// ErrUnavailable matches every error that says that the keyring could not be asked, or did not
// do what it was asked. These are the errors below it in this block. It does not match
// ErrNotFound, ErrInvalidValue or a context that ended. An error that matches ErrUnavailable
// and none of the others is a refusal without a known cause; its text is the keyring's own.
var (
	// ErrNotFound: the keyring answered that it has no such item.
	ErrNotFound = errors.New("no such item in the keyring")
	// ErrInvalidValue: the value for Set was not one non-empty line of printable ASCII. The
	// keyring was not called.
	ErrInvalidValue = errors.New("value is not one line of printable ASCII")

	// ErrUnavailable: the keyring gave no usable answer; see above.
	ErrUnavailable = errors.New("keyring unavailable")

	// ErrNoBus: there is no session bus. There is no address, an old one, or that of another
	// user.
	ErrNoBus error = unavailable("no D-Bus session bus")
	// ErrNoProvider: the session bus works, but no program on it offers a keyring, and none can
	// be started.
	ErrNoProvider error = unavailable("no program offers a keyring (org.freedesktop.secrets) on the session bus")
	// ErrNoCollection: the keyring program has no collection "login" and no default collection.
	ErrNoCollection error = unavailable("the keyring has no login or default collection")
	// ErrLocked: the collection is locked, and no prompt may be shown.
	ErrLocked error = unavailable("the keyring is locked")
	// ErrDismissed: the collection is locked, and the prompt to unlock it was dismissed or
	// could not be shown.
	ErrDismissed error = unavailable("the prompt to unlock the keyring was dismissed or could not be shown")
	// ErrTimeout: the keyring did not answer within the deadline, in this call or in an earlier
	// one on this Keyring.
	ErrTimeout error = unavailable("the keyring did not answer in time")
	// ErrReadBack: the keyring reported success for a Set, but the item is missing or has
	// another value. Nothing reliable was stored.
	ErrReadBack error = unavailable("the keyring did not store the value it was given")
	// ErrNotDeleted: the keyring reported success for a Delete, but there is still an item of
	// that account, for example one that another program added.
	ErrNotDeleted error = unavailable("the keyring still has such an item after deleting it")
	// ErrTooBig: the value is longer than MaxValue, or too big for the keyring.
	ErrTooBig error = unavailable("value is too big for a keyring")
	// ErrUnsupported: there is no keyring for this operating system.
	ErrUnsupported error = unavailable("no keyring is supported on this system")
)

// unavailable is an error that matches ErrUnavailable but does not contain its text.
type unavailable string

func (u unavailable) Error() string        { return string(u) }
func (u unavailable) Is(target error) bool { return target == ErrUnavailable }
