// Package keyring keeps short secrets in the keyring of the operating system: the Secret
// Service on Linux and the BSDs, the Keychain on macOS, the Credential Manager on Windows.
//
// Start with [Config] and [New], which returns a [Keyring]. Its methods are Get, GetAll, Set
// and Delete.
//
// The package is a thin layer over a library. That library has no deadlines and only a few
// typed errors, and it sometimes reports success for work that it did not do. This package
// makes each answer reliable: it comes within a deadline, it is checked, and an error has its
// cause.
//
// # Not found is an answer
//
// [ErrNotFound] means that the keyring answered, was unlocked, and has no such item. In every
// other case without a value the error is an [ErrUnavailable]; the block of errors lists the
// causes. A caller must never treat ErrUnavailable like ErrNotFound: a new key that is made
// because the keyring was locked destroys data.
//
// # Deadlines
//
// Each call has one deadline, [Config].Timeout. It includes the wait for a turn and the
// verification. A call that the keyring does not answer cannot be cancelled. So at the deadline
// the call is abandoned, and the [Keyring] is finished: all later calls on it return
// [ErrTimeout] at once.
//
// To ask again, make a new Keyring. It first asks over a connection of its own, so a keyring
// that is still silent costs one more deadline. The mark "finished" belongs to one Keyring and
// not to the process, for two reasons: the silence may end, and the package keeps no global
// state. A program makes one Keyring, so it has one mark.
//
// When a context ends, that is not the fault of the keyring. The error wraps ctx.Err(), and the
// Keyring can be used again when the abandoned call is over.
//
// After ErrTimeout or an ended context, the effect of a Set or Delete is unknown: a person may
// still answer a prompt, and then the call does its work.
//
// # Prompts
//
// If a prompt is needed and Config.Interactive is false, the call fails with [ErrLocked] before
// anything is shown. On the Secret Service, the package asks first whether the collection is
// locked. If it is locked between that question and the call, a prompt may still appear; then
// the deadline ends the call. The other systems have no such question, so there only the
// deadline counts.
//
// # Verification
//
// Set reads the item back and compares it. Delete looks for the item afterwards. The Secret
// Service allows several items with the same attributes, or with additional ones, and any
// program may add one. Get returns the item that the keyring lists first. So a value must prove
// itself, and the caller of Get must check it.
//
// # Concurrency
//
// A Keyring is safe for concurrent use. Its calls take turns. Calls of different processes do
// not wait for each other.
//
// # What a keyring protects against
//
// It protects against a stolen disk, a stolen backup of the home directory, and other users of
// the machine. It does not protect against programs of the same user: while the keyring is
// unlocked, any of them can read, add and delete items. On Linux the value crosses the session
// bus in clear. An administrator can read the memory of all programs. Values are ordinary Go
// strings here; they cannot be wiped, and the package does not try.
package keyring
