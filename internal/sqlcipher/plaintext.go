package sqlcipher

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"
)

// OpenPlaintext opens another program's unencrypted SQLite database for reading. It reads the
// file's write-ahead log too, so it sees rows that the program has not checkpointed yet. It
// returns [ErrNotPlaintext] for anything but an SQLite database; [ErrAlreadyOpen] for a file
// that this process has open, as plaintext or encrypted; and an error that matches
// [fs.ErrNotExist] if there is no file. The caller closes the database and passes its errors to
// [MapError].
func OpenPlaintext(ctx context.Context, path string) (*sql.DB, error) {
	return openPlaintext(ctx, path, "mode=ro&_query_only=on")
}

// WithPlaintext runs fn while nobody else can use an unencrypted database. All that it has is in
// the file itself then: the write-ahead log and the journal are gone. fn may rename the file,
// and does not write to the database. If another connection has locked it, the error matches
// [ErrLocked]; a connection in rollback mode that does nothing has no lock. Other errors are
// those of [OpenPlaintext].
func WithPlaintext(ctx context.Context, path string, fn func(ctx context.Context, tx *sql.Tx) error) error {
	db, err := openPlaintext(ctx, path, "mode=rw&_busy_timeout=1000&_txlock=exclusive")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var mode string
	if err := db.QueryRowContext(ctx, `PRAGMA journal_mode = DELETE`).Scan(&mode); err != nil {
		return fmt.Errorf("take %q: %w", path, MapError(err))
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("take %q: %w", path, MapError(err))
	}
	defer tx.Rollback()
	err = removeIdleJournal(path + "-journal")
	if err == nil {
		err = CheckNoSideFiles(path)
	}
	if err != nil {
		return err
	}
	return fn(ctx, tx)
}

// removeIdleJournal removes the journal that journal_mode PERSIST or TRUNCATE leaves: it is empty,
// or its header is zero. The caller has the database for itself, so none is in use.
func removeIdleJournal(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	header := make([]byte, 8)
	if n, err := io.ReadFull(f, header); n > 0 && (err != nil || !bytes.Equal(header, make([]byte, 8))) {
		return nil // it is not idle: CheckNoSideFiles refuses it
	}
	return os.Remove(path)
}

// openPlaintext opens a plaintext database by these parameters of the driver.
func openPlaintext(ctx context.Context, path, parameters string) (*sql.DB, error) {
	if err := CheckNotOpen(path); err != nil {
		return nil, err
	}
	claim, err := TakeClaim(path)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", path, err)
	}
	header, err := readHeader(path, len(plaintextHeader))
	if err == nil && string(header) != plaintextHeader {
		err = fmt.Errorf("%q: %w", path, ErrNotPlaintext)
	}
	if err != nil {
		claim.Release()
		return nil, err
	}
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: parameters}
	db := sql.OpenDB(plaintextConnector{uri.String(), claim})
	if err := db.PingContext(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %q: %w", path, MapError(err))
	}
	return db, nil
}

type plaintextConnector struct {
	uri   string
	claim *Claim
}

var _ io.Closer = plaintextConnector{}

// Connect implements [driver.Connector].
func (c plaintextConnector) Connect(context.Context) (driver.Conn, error) {
	return c.Driver().Open(c.uri)
}

// Driver implements [driver.Connector].
func (c plaintextConnector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

// Close implements [io.Closer]. It is called after the pool was closed.
func (c plaintextConnector) Close() error {
	c.claim.Release()
	return nil
}
