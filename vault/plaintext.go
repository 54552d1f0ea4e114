package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
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

// PutPlaintextAside gives an unencrypted SQLite database the name path + ".plaintext", or one
// with a number behind it, and has path name the vault at db from then on, by a link. Both are
// in one directory, and the caller has the vault open. unchanged is called before, while nobody else can write to the database; its
// error ends all. It returns the new name.
//
// [ErrLocked]: another program has the database open. [ErrInvalid]: path is a link, or the
// vault is elsewhere. On a file system without the needed call, the error matches
// [errors.ErrUnsupported]. After any error the database is under its old name.
func PutPlaintextAside(ctx context.Context, path, db string, unchanged func(ctx context.Context, tx *sql.Tx) error) (aside string, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	real, err := resolve(path)
	if err != nil {
		return "", err
	}
	p, err := newPaths(db)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || durable.Links(info) > 1 || filepath.Dir(real) != p.dir || real == p.db {
		return "", fmt.Errorf("%w: %q must be a file with one name, beside the vault", ErrInvalid, path)
	}
	err = sqlcipher.WithPlaintext(ctx, real, func(ctx context.Context, tx *sql.Tx) error {
		if err := notOpen(real); err != nil {
			return err
		}
		if err := unchanged(ctx, tx); err != nil {
			return err
		}
		aside, err = putAside(real, p.db)
		return err
	})
	return aside, err
}

// putAside gives the database a free name. A program that has opened it meanwhile would write to
// it unseen: then everything is undone.
func putAside(path, db string) (aside string, err error) {
	if err := os.Chmod(path, 0o600); err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		aside = path + ".plaintext"
		if n > 1 {
			aside = fmt.Sprintf("%s-%d", aside, n)
		}
		err = durable.PutAside(path, aside, filepath.Base(db))
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err == nil {
		if err = notOpen(aside); err != nil {
			err = errors.Join(err, durable.PutBack(path, aside))
		}
	}
	if err != nil {
		return "", err
	}
	return aside, nil
}

// notOpen returns [ErrLocked] if another process has the file open.
func notOpen(path string) error {
	if openers := durable.Openers(path); len(openers) > 0 {
		return fmt.Errorf("%q is open in %s: %w", path, openers[0], ErrLocked)
	}
	return nil
}

// PlaintextError maps an error of a database that [OpenPlaintext] opened to this package's
// sentinels, such as [ErrDamaged] for a damaged file.
func PlaintextError(err error) error { return sqlcipher.MapError(err) }

// CheckNotOpen returns [ErrAlreadyOpen] if this process has the file open as a database, or if
// it is SQLite's own file beside such a database. Opening such a file again and closing it
// would drop the locks of the database.
func CheckNotOpen(path string) error { return sqlcipher.CheckNotOpen(path) }
