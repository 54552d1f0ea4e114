package backup

import "errors"

// The errors of this package, to be compared with [errors.Is]. Those of vault
// and registry pass through: [vault.ErrWrongKey] when no identity opens the
// file, [vault.ErrNewer] for a format of a later program.
var (
	// ErrDamaged: the file is not what was written: cut short, altered, or with
	// a member too many, too few or out of place.
	ErrDamaged = errors.New("backup is damaged")
	// ErrUntrusted: the file is whole, but nobody vouched for its signer.
	ErrUntrusted = errors.New("backup is not trusted")
	// ErrSuccessor: the file's signer is a certified successor of the one given. Who knew
	// the key of that one can have made the certificate.
	ErrSuccessor = errors.New("backup is signed by a successor of the signer given")
	// ErrExists: there is a file of that name already.
	ErrExists = errors.New("exists already")
	// ErrNotRecorded: the backup is in place and good, but the vault could not
	// note that it is.
	ErrNotRecorded = errors.New("backup is written, but not recorded in the vault")
)
