package vault

import (
	"context"
	"database/sql"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// OpenPlaintext opens another program's unencrypted SQLite database for reading. It reads the
// file's write-ahead log too, so it sees rows that the program has not checkpointed yet. It
// returns [ErrNotPlaintext] for anything but an SQLite database; [ErrAlreadyOpen] for a file
// that this process has open, as plaintext or as a vault; and an error that matches
// [fs.ErrNotExist] if there is no file. The caller closes the database.
func OpenPlaintext(ctx context.Context, path string) (*sql.DB, error) {
	return sqlcipher.OpenPlaintext(ctx, path)
}

// PlaintextError maps an error of a database that [OpenPlaintext] opened to this package's
// sentinels, such as [ErrDamaged] for a damaged file.
func PlaintextError(err error) error { return sqlcipher.MapError(err) }

// CheckNotOpen returns [ErrAlreadyOpen] if this process has the file open as a database, or if
// it is SQLite's own file beside such a database. Opening such a file again and closing it
// would drop the locks of the database.
func CheckNotOpen(path string) error { return sqlcipher.CheckNotOpen(path) }
