package vault

import (
	"errors"
	"fmt"
	"os"

	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// KeyID is the id of a key. It is the SQLCipher salt, the first 16 bytes of the database file.
// Every place that stores the key stores it under this id.
type KeyID = rootkey.ID

// ParseKeyID parses 32 lower-case hex digits, or returns [ErrInvalid].
func ParseKeyID(s string) (KeyID, error) { return rootkey.ParseID(s) }

// Key is a root key with its id. It is safe for concurrent use until wiped.
type Key = rootkey.Key

// peekKeyID is readKeyID for a file that this process may have open. If it has, it returns
// [ErrAlreadyOpen].
func peekKeyID(path string) (KeyID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return KeyID{}, err
	}
	var id KeyID
	err = sqlcipher.Unclaimed(info, func() (err error) {
		id, err = readKeyID(path)
		return err
	})
	return id, err
}

// readKeyID reads the key id of the database file. No connection of this process may have the
// file open: closing the file drops the process's locks.
func readKeyID(path string) (KeyID, error) {
	salt, err := sqlcipher.ReadSalt(path)
	if errors.Is(err, sqlcipher.ErrNotRegular) {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return KeyID(salt), err
}

func wipe(b []byte) { clear(b) }
