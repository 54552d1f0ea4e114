package sqlcipher

import (
	"errors"
	"fmt"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"
)

// The errors of this package, to be compared with [errors.Is].
var (
	// ErrDamaged: a page fails its HMAC or is malformed, or the key is wrong.
	ErrDamaged = errors.New("database is damaged")
	// ErrLocked: another connection held a lock of SQLite for too long.
	ErrLocked = errors.New("database is in use")
	// ErrAlreadyOpen: this process already has the file open. Share that handle.
	ErrAlreadyOpen = errors.New("database is already open in this process: share the handle")
	// ErrClosed: the handle was closed.
	ErrClosed = errors.New("database is closed")
	// ErrPlaintext: the file is an ordinary SQLite database.
	ErrPlaintext = errors.New("a plaintext SQLite database, not an encrypted one")
	// ErrNotRegular: the path names a directory, a pipe or a device.
	ErrNotRegular = errors.New("not a regular file")
	// ErrNotPlaintext: the file is not an ordinary SQLite database.
	ErrNotPlaintext = errors.New("not a plaintext SQLite database")
	// ErrLogGone: the write-ahead log of the open database was removed or replaced. What was
	// committed to it is lost when the database is closed.
	ErrLogGone = errors.New("write-ahead log is gone")
	// ErrUnknownOutcome: the commit failed at the disk, so the change may or may not be stored.
	// The open database continues without the change, and the next commit overwrites it. But
	// after a kill or a power cut before that commit, the change may be there.
	ErrUnknownOutcome = errors.New("the change may or may not have been stored")
)

// MapError adds the sentinel that belongs to an error of SQLite: [ErrDamaged] for a page that
// fails its HMAC or is malformed, [ErrLocked] for a lock that was held for too long.
func MapError(err error) error {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case sqlite3.ErrNotADB, sqlite3.ErrCorrupt:
		if !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		if !errors.Is(err, ErrLocked) {
			return fmt.Errorf("%w: %w", ErrLocked, err)
		}
	}
	return err
}

// flushFailed reports whether a commit failed at the disk. Its pages may still have been
// written.
func flushFailed(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == sqlite3.ErrIoErr
}
