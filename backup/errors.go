package backup

import "errors"

// The errors of this package. Compare them with [errors.Is]. The errors of vault
// and registry pass through: [vault.ErrWrongKey] when no identity opens the
// file, [vault.ErrNewer] for a format of a later program.
var (
	// ErrDamaged: the file is not what was written. It is cut short or altered, or
	// a member is missing, added or out of order.
	ErrDamaged = errors.New("backup is damaged")
	// ErrUntrusted: the signature is valid, but the signer is not trusted.
	ErrUntrusted = errors.New("backup is not trusted")
	// ErrSuccessor: the file's signer is a certified successor of a trusted signer.
	// Anyone who knew that signer's key could make the certificate.
	ErrSuccessor = errors.New("backup is signed by a successor of the signer given")
	// ErrOtherBackup: the file is a backup, but another one than its name says, or than
	// the one that was looked for. Somebody may want an older state to pass as a newer one.
	ErrOtherBackup = errors.New("another backup than its name says")
	// ErrExists: a file with that name exists.
	ErrExists = errors.New("exists already")
	// ErrPartial: the backup is in some of its targets only.
	ErrPartial = errors.New("the backup is not in every target")
	// ErrLocked: the store holds the object under a lock, and does not delete it yet.
	ErrLocked = errors.New("is locked by its store")
	// ErrNotProven: the backup restores, but not to what the vault recorded when it was made.
	ErrNotProven = errors.New("backup does not restore to what was recorded")
	// ErrUnreachable: the store does not answer, or not as it should.
	ErrUnreachable = errors.New("store cannot be reached")
	// ErrDenied: the store does not let the credential do that, or there is none.
	ErrDenied = errors.New("store denies access")
	// ErrUnsupported: the store cannot do what the target asks of it.
	ErrUnsupported = errors.New("store does not support this")
	// ErrStoreFull: the store has no space.
	ErrStoreFull = errors.New("store is full")
	// ErrNotRecorded: the backup is complete and in place, but the vault could not
	// record that.
	ErrNotRecorded = errors.New("backup is written, but not recorded in the vault")
)
