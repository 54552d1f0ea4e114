package vault

import (
	"errors"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// The errors of this package, to be compared with [errors.Is]. The errors of package keyring
// are returned unchanged.
var (
	// ErrNoVault: there is no database at the path.
	ErrNoVault = errors.New("no vault")
	// ErrExists: there already is a database at the path.
	ErrExists = errors.New("exists already")
	// ErrFileExists: the file that was to be created already exists.
	ErrFileExists = errors.New("file exists already")
	// ErrPlaintext: the file at the path is an ordinary SQLite database.
	ErrPlaintext = sqlcipher.ErrPlaintext
	// ErrNotPlaintext: the file to import is not an ordinary SQLite database.
	ErrNotPlaintext = sqlcipher.ErrNotPlaintext
	// ErrMissing: the slots file names a database that does not exist.
	ErrMissing = errors.New("database is missing")

	// ErrLocked: another process holds the vault and did not release it in time.
	ErrLocked = sqlcipher.ErrLocked
	// ErrAlreadyOpen: this process already has the vault open. Share that handle.
	ErrAlreadyOpen = sqlcipher.ErrAlreadyOpen
	// ErrClosed: the handle was closed.
	ErrClosed = sqlcipher.ErrClosed
	// ErrReadOnly: the database was set aside, so it is opened for reading only.
	ErrReadOnly = errors.New("the vault was set aside: it is read only")

	// ErrWrongKey: the source of the key answered, but it has no key or another key, or an
	// identity opens none of the slots.
	ErrWrongKey = identity.ErrWrongKey
	// ErrNoUnlockMethod: no source of the key was given, or none that this vault has.
	ErrNoUnlockMethod = identity.ErrNoUnlockMethod

	// ErrKeyringItem: the keyring answered, but it has no item for this vault, or the item is
	// not the key of this vault. It comes with ErrWrongKey.
	ErrKeyringItem = errors.New("keyring item is missing or wrong")
	// ErrSlotsFile: the slots file is missing or unreadable, and no other unlock method is
	// known. It comes with ErrNoUnlockMethod or ErrWrongKey.
	ErrSlotsFile = errors.New("no readable slots file")

	// ErrNoSlot: the vault has no such slot.
	ErrNoSlot = errors.New("no such slot")
	// ErrSlotExists: the recipient already has a slot.
	ErrSlotExists = errors.New("recipient already has a slot")
	// ErrLastSlot: this is the last recovery or recipient slot. Without it, losing the keyring
	// would lose the vault.
	ErrLastSlot = errors.New("last recovery or recipient slot")
	// ErrPlugin: an age plugin is not installed, or failed.
	ErrPlugin = identity.ErrPlugin

	// ErrUnvouched: the vault was opened by an identity, and nothing vouches for its signer.
	// Anybody can make a vault that a known recipient opens.
	ErrUnvouched = errors.New("nothing vouches for the vault's signer")
	// ErrSuccessor: the signer is a certified successor of the given signer.
	ErrSuccessor = errors.New("the signer is a successor of the one given")
	// ErrForeignSigner: what is known about the vault's signer contradicts this signer.
	ErrForeignSigner = errors.New("the vault has another signer")
	// ErrOtherVault: the database belongs to another vault than the wanted one.
	ErrOtherVault = errors.New("another vault")

	// ErrInsecure: others can read or change a file or directory.
	ErrInsecure = errors.New("insecure permissions")
	// ErrNetworkFS: the vault is on a file system on which locks may not work.
	ErrNetworkFS = errors.New("network file system")
	// ErrInvalid: an argument breaks a rule that the message names.
	ErrInvalid = wire.ErrInvalid
	// ErrNewer: the database was written by a newer program.
	ErrNewer = errors.New("made by a newer version")

	// ErrDamaged: the database fails its integrity checks.
	ErrDamaged = sqlcipher.ErrDamaged
	// ErrUnknownKeyID: no known key has the id that the file begins with.
	ErrUnknownKeyID = errors.New("unknown key id")
	// ErrRollback: the database is older than the slots file, the keyring or the audit log say.
	ErrRollback = digest.ErrOld
	// ErrAudit: the chain of the audit log is broken.
	ErrAudit = errors.New("audit log is broken")
	// ErrLogGone: the write-ahead log of the open database was removed or replaced. What was
	// committed to it is lost when the vault is closed.
	ErrLogGone = sqlcipher.ErrLogGone
	// ErrUnknownOutcome: the commit failed at the disk, so the change may or may not be stored.
	// The open vault continues without the change, and the next commit overwrites it. But after
	// a kill or a power cut before that commit, the change may be there. The audit log shows
	// whether it is.
	ErrUnknownOutcome = sqlcipher.ErrUnknownOutcome
	// ErrUnsettled: the slots file cannot be brought up to date, so nothing may change the
	// vault.
	ErrUnsettled = errors.New("slots file cannot be written: the vault is read only")
)
