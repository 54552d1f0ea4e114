package vault

import (
	"errors"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// The errors of this package, to be compared with [errors.Is]. Those of the
// keyring (package keyring) pass through unchanged.
var (
	// ErrNoVault: there is no database at the path.
	ErrNoVault = errors.New("no vault")
	// ErrExists: there is a database at the path already.
	ErrExists = errors.New("exists already")
	// ErrFileExists: a file that was to be made is there already.
	ErrFileExists = errors.New("file exists already")
	// ErrPlaintext: the file at the path is an ordinary SQLite database.
	ErrPlaintext = sqlcipher.ErrPlaintext
	// ErrNotPlaintext: the file to import is not an ordinary SQLite database.
	ErrNotPlaintext = sqlcipher.ErrNotPlaintext
	// ErrMissing: the slots file knows a database that is not there.
	ErrMissing = errors.New("database is missing")

	// ErrLocked: another process holds the vault and did not let go in time.
	ErrLocked = sqlcipher.ErrLocked
	// ErrAlreadyOpen: this process has the vault open; share that handle.
	ErrAlreadyOpen = sqlcipher.ErrAlreadyOpen
	// ErrClosed: the handle was closed.
	ErrClosed = sqlcipher.ErrClosed
	// ErrReadOnly: a file set aside is opened for reading only.
	ErrReadOnly = errors.New("vault is a file set aside: read only")

	// ErrWrongKey: the source that was asked answered, but its key is missing,
	// is another one, or an identity opens none of the slots.
	ErrWrongKey = identity.ErrWrongKey
	// ErrNoWayIn: no source of the key was given, or none that this vault has.
	ErrNoWayIn = identity.ErrNoWayIn

	// ErrKeyringItem: the keyring answered that it has no key of this vault, or has
	// something else in its place. It comes with ErrWrongKey.
	ErrKeyringItem = errors.New("keyring item is missing or another's")
	// ErrSlotsFile: the slots file is gone or unreadable, and nothing else tells of a
	// way in. It comes with ErrNoWayIn or ErrWrongKey.
	ErrSlotsFile = errors.New("no slots file to open by")

	// ErrNoSlot: the vault has no such slot.
	ErrNoSlot = errors.New("no such slot")
	// ErrSlotExists: the recipient has a slot already.
	ErrSlotExists = errors.New("recipient has a slot already")
	// ErrLastSlot: without this recovery or recipient slot, a lost keyring would
	// lose the vault.
	ErrLastSlot = errors.New("last recovery or recipient slot")
	// ErrPlugin: an age plugin is not installed, or failed.
	ErrPlugin = identity.ErrPlugin

	// ErrUnvouched: the vault was opened by an identity, and nothing vouches for its
	// signer: anybody can make a vault that a known recipient opens.
	ErrUnvouched = errors.New("nothing vouches for the vault's signer")
	// ErrSuccessor: the signer is a certified successor of the one that was given.
	ErrSuccessor = errors.New("the signer is a successor of the one given")
	// ErrForeignSigner: what is known of the vault's signer speaks against this one.
	ErrForeignSigner = errors.New("the vault has another signer")
	// ErrOtherVault: the database is another vault's than the one that is wanted.
	ErrOtherVault = errors.New("another vault")

	// ErrInsecure: a file or directory that others could read or change.
	ErrInsecure = errors.New("insecure permissions")
	// ErrNetworkFS: the vault is on a file system whose locks may not hold.
	ErrNetworkFS = errors.New("network file system")
	// ErrInvalid: an argument breaks a rule that the message names.
	ErrInvalid = wire.ErrInvalid
	// ErrNewer: the database was written by a newer program.
	ErrNewer = errors.New("made by a newer version")

	// ErrDamaged: the database fails its integrity checks.
	ErrDamaged = sqlcipher.ErrDamaged
	// ErrUnknownKeyID: nobody knows a key for the id that the file begins with.
	ErrUnknownKeyID = errors.New("unknown key id")
	// ErrRollback: the database is older than what else is known of it.
	ErrRollback = errors.New("database is an older copy")
	// ErrAudit: the chain of the audit log is broken.
	ErrAudit = errors.New("audit log is broken")
	// ErrLogGone: the write-ahead log of the open database was removed or replaced, so
	// what is committed to it is lost when the vault is closed.
	ErrLogGone = sqlcipher.ErrLogGone
	// ErrUnknownOutcome: the commit failed at the disk, so the change may have been
	// stored or not. An open vault goes on without it, and the next commit writes over
	// it; but after a kill or a power cut before that, it may be there. The audit log
	// tells.
	ErrUnknownOutcome = sqlcipher.ErrUnknownOutcome
	// ErrUnsettled: the slots file cannot be brought up to date, so nothing may
	// change the vault.
	ErrUnsettled = errors.New("slots file cannot be written: the vault is read only")
)
