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
// with a number behind it, and makes path a link to the vault of cfg. Both are in one directory.
// unchanged is called before, while nobody else can write to the database; its error ends all.
//
// It returns where the database is: its new name, or path after an error. Only where a failure
// could not be undone, it returns a new name with the error, and path may be the link.
//
// [ErrLocked]: another program has the database open. [ErrInvalid]: path is a link, or the
// vault is elsewhere. On a file system without the needed call, the error matches
// [errors.ErrUnsupported].
func PutPlaintextAside(ctx context.Context, cfg Config, path string, unchanged func(ctx context.Context, tx *sql.Tx) error) (at string, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return path, err
	}
	real, err := resolve(path)
	if err != nil {
		return path, err
	}
	p, err := newPaths(cfg.Path)
	if err != nil {
		return path, err
	}
	if !info.Mode().IsRegular() || durable.Links(info) > 1 || filepath.Dir(real) != p.dir || real == p.db {
		return path, fmt.Errorf("%w: %q must be a file with one name, beside the vault", ErrInvalid, path)
	}
	at = path
	err = sqlcipher.WithPlaintext(ctx, real, func(ctx context.Context, tx *sql.Tx) error {
		if err := notOpen(real); err != nil {
			return err
		}
		if err := unchanged(ctx, tx); err != nil {
			return err
		}
		moved, err := putAside(cfg.fs(), real, p.db)
		if moved != real {
			at = moved
		}
		return err
	})
	return at, err
}

// putAside gives the database a free name. A program that has opened it meanwhile would write to
// it unseen: then everything is undone.
func putAside(fsys durable.FS, path, db string) (at string, err error) {
	for n := 1; ; n++ {
		aside := path + ".plaintext"
		if n > 1 {
			aside = fmt.Sprintf("%s-%d", aside, n)
		}
		if at, err = durable.PutAside(fsys, path, aside, filepath.Base(db)); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return at, err
	}
	if open := notOpen(at); open != nil {
		back, err := durable.PutBack(fsys, path, at)
		return back, errors.Join(open, err)
	}
	return at, os.Chmod(at, 0o600)
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
