package sqlcipher

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

const (
	plaintextHeader = "SQLite format 3\x00"
	pageSize        = 4096
)

// Salt is the beginning of an encrypted database file.
type Salt [16]byte

// ReadSalt reads the salt of the file at path. No connection of this process may have the file
// open: closing the file drops the process's locks. Errors: [ErrPlaintext], [ErrDamaged] for a
// file that is too short, [ErrNotRegular], and one that matches [fs.ErrNotExist].
func ReadSalt(path string) (Salt, error) {
	f, err := os.Open(path)
	if err != nil {
		return Salt{}, fmt.Errorf("read %q: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Salt{}, fmt.Errorf("examine %q: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return Salt{}, fmt.Errorf("%q is %w", path, ErrNotRegular)
	}
	var salt Salt
	n, err := f.ReadAt(salt[:], 0)
	switch {
	case info.Size() == 0:
		return Salt{}, fmt.Errorf("%q is empty: %w", path, ErrDamaged)
	case n == len(salt) && string(salt[:]) == plaintextHeader:
		return Salt{}, fmt.Errorf("%q: %w", path, ErrPlaintext)
	case info.Size() < pageSize:
		return Salt{}, fmt.Errorf("%q is truncated to %d bytes: %w", path, info.Size(), ErrDamaged)
	case err != nil:
		return Salt{}, fmt.Errorf("read %q: %w", path, err)
	}
	return salt, nil
}

func readHeader(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	header := make([]byte, n)
	n, err = io.ReadFull(f, header)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return header[:n], nil
}

// SideFiles returns the paths of SQLite's own files beside a database.
func SideFiles(db string) []string { return []string{db + "-wal", db + "-shm", db + "-journal"} }

// CheckNoSideFiles returns [ErrLocked] if one of these files exists. Then a connection is open,
// or a log is left that SQLite would replay into the next database at this path.
func CheckNoSideFiles(db string) error {
	for _, path := range SideFiles(db) {
		if ok, err := durable.Exists(path); err != nil {
			return err
		} else if ok {
			return fmt.Errorf("%w: %q is still there", ErrLocked, path)
		}
	}
	return nil
}
