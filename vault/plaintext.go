package vault

import (
	"context"
	"database/sql"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// OpenPlaintext opens somebody else's unencrypted SQLite database for reading.
// It follows the file's write-ahead log, so a row that its program has not
// checkpointed yet is seen. It returns [ErrNotPlaintext] for anything but an
// SQLite database, [ErrAlreadyOpen] for a file that this process has open, as
// plaintext or as a vault's, and an error that matches [fs.ErrNotExist] when there
// is no file. The caller closes it.
func OpenPlaintext(ctx context.Context, path string) (*sql.DB, error) {
	return sqlcipher.OpenPlaintext(ctx, path)
}

// PlaintextError gives an error of a database that [OpenPlaintext] opened this
// package's sentinels: [ErrDamaged] for a file that is damaged.
func PlaintextError(err error) error { return sqlcipher.MapError(err) }

// CheckNotOpen refuses, with [ErrAlreadyOpen], a file that this process has open as a
// database, or SQLite's own file beside one: whoever opens it otherwise and closes it
// again drops the locks of the database.
func CheckNotOpen(path string) error { return sqlcipher.CheckNotOpen(path) }
