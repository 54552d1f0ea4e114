// Package keyring keeps short secrets in the keyring of the operating system: the
// Secret Service on Linux and the BSDs, the Keychain on macOS, the Credential Manager
// on Windows.
//
// It is a thin layer over a library that has no deadlines, one typed error and, in
// places, success reported for nothing done. What this package adds is an answer that
// can be relied on: within the deadline, with the cause told apart, and checked.
//
// # Not found is an answer
//
// [ErrNotFound] means that the keyring was reached, was unlocked, and holds no such
// item. Every other reason for having no value is an [ErrUnavailable], of which the
// block of errors names the causes. A caller must never take the second for the first:
// making a new key because the keyring happened to be locked destroys data.
//
// # Deadlines
//
// Each call, its wait for a turn and its verification included, has one deadline,
// [Config].Timeout. Nothing can cancel a call that a keyring does not answer, so the
// deadline leaves it behind and the [Keyring] is finished: all later calls on it return
// [ErrTimeout] at once. To ask again, make a new one; it asks with a connection of its
// own first, so that a keyring which is still silent costs one more deadline. The mark belongs to the value and not to the process because the
// silence may end, and because a package has no business remembering things for
// everybody. A program makes one Keyring and so gets one mark.
//
// A context that ends is not the keyring's fault: the error then wraps ctx.Err(), and
// the Keyring stays usable once the call left behind is over.
//
// After ErrTimeout or an ended context the effect of a Set or Delete is unknown: a
// person may still answer a prompt, and the call then does its work.
//
// # Prompts
//
// Where a prompt would be needed and Config.Interactive is false, the call fails with
// [ErrLocked] before anything is shown. On the Secret Service this is asked of the
// collection beforehand; a collection that is locked between that question and the call
// may still prompt, and then the deadline ends it. The other systems cannot be asked,
// there the deadline alone decides.
//
// # Verification
//
// Set reads the item back and compares it, Delete looks for the item afterwards. The
// Secret Service allows several items with the same attributes and more, and any
// program may add one: Get returns whichever the keyring names first. So a value must
// carry its own proof; whoever calls Get checks it.
//
// # Concurrency
//
// A Keyring may be used from several goroutines; its calls take turns. Processes do not
// wait for each other.
//
// # What a keyring protects against
//
// A stolen disk, a backup of the home directory, and other users of the machine. Not
// programs of the same user: any of them can read, plant and delete items while the
// keyring is unlocked, on Linux the value crosses the session bus in clear, and an
// administrator can read the memory of all of them. Values are ordinary Go strings
// here; wiping them is not possible and not attempted.
package keyring
