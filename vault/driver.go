package vault

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"
)

// This file alone knows the SQLCipher driver.

const (
	plaintextHeader = "SQLite format 3\x00"
	pageSize        = 4096
)

// connector opens keyed connections. The driver's own pool entry, a DSN held
// for the life of a pool, would keep the key in a string and its ConnectHook
// runs too late to give it: so each connection gets its key here.
type connector struct {
	path string
	key  []byte // derived for SQLCipher
	id   KeyID
	// inode is what the file at path must still be: opening would otherwise
	// create an empty database where there is none.
	inode os.FileInfo
	mode  connMode
	old   *attachment // or nil
	// digestKey is the key of the content digest, and moved gets what the triggers of
	// a write connection tell of rows.
	digestKey []byte
	moved     *digest
	// schema is the version whose rows the triggers know; another one is to be
	// migrated, which computes the digest anew.
	schema int64
}

// attachment is another keyed database that a connection sees under the name
// "old".
type attachment struct {
	path string
	key  *Key
}

type connMode int

const (
	reading  connMode = iota // query only, takes no write lock
	writing                  // immediate transactions in a write-ahead log
	building                 // as writing, with a rollback journal: no side file outlives it
)

var _ driver.Connector = (*connector)(nil)

// Connect implements [driver.Connector].
func (c *connector) Connect(context.Context) (driver.Conn, error) {
	now, err := os.Stat(c.path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if !os.SameFile(now, c.inode) {
		return nil, fmt.Errorf("open database: the file %q was replaced while it was open", c.path)
	}
	if len(c.key) != 32 { // else SQLCipher would take it for a passphrase
		return nil, ErrClosed
	}
	options := url.Values{
		"_pragma_key":   {rawKey(c.key, c.id)},
		"_busy_timeout": {"5000"},
		"_foreign_keys": {"on"},
	}
	synchronous := "FULL"
	begin := "BEGIN IMMEDIATE"
	// Settings hold for one connection, so each sets all of them. Of
	// cipher_memory_security: wiping and locking of key material stay on
	// without it. An in-memory temp_store keeps plaintext off the disk.
	pragmas := `PRAGMA cipher_memory_security = OFF; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 0;`
	switch c.mode {
	case reading:
		begin = "BEGIN" // else each read would take the write lock
		pragmas += `PRAGMA cache_size = -16384; PRAGMA query_only = ON;`
	case writing:
		options.Set("_journal_mode", "WAL")
		pragmas += `PRAGMA cache_size = -65536;`
	case building:
		options.Set("_journal_mode", "DELETE")
		// Nobody reads the file before the transition has flushed it as a whole.
		synchronous = "OFF"
		pragmas += `PRAGMA cache_size = -65536;`
	}
	options.Set("_synchronous", synchronous)
	d := &sqlite3.SQLiteDriver{ConnectHook: func(conn *sqlite3.SQLiteConn) error {
		if _, err := conn.Exec(pragmas, nil); err != nil {
			return err
		}
		if err := c.maintainDigest(conn); err != nil || c.old == nil {
			return err
		}
		derived := c.old.key.derive(purposeSQLCipher)
		defer wipe(derived)
		_, err := conn.Exec(`ATTACH ? AS old KEY ?`, []driver.Value{c.old.path, rawKey(derived, c.old.key.id)})
		return err
	}}
	conn, err := d.Open(c.path + "?" + options.Encode())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", mapDriverError(err))
	}
	raw := conn.(*sqlite3.SQLiteConn)
	if err := c.checkSettings(raw); err != nil {
		raw.Close()
		return nil, fmt.Errorf("open database: %w", mapDriverError(err))
	}
	return newStatementConn(raw, begin), nil
}

// checkSettings reads back what durability and secrecy rest on: SQLite ignores a
// setting that it does not know, or that it cannot make, without an error.
func (c *connector) checkSettings(conn *sqlite3.SQLiteConn) error {
	type setting struct {
		pragma string
		want   any
	}
	settings := []setting{
		{"temp_store", int64(2)}, // MEMORY
		{"foreign_keys", int64(1)},
	}
	if c.mode != building {
		settings = append(settings, setting{"synchronous", int64(2)}) // FULL: a commit is flushed before it is reported
	}
	switch c.mode {
	case reading:
		settings = append(settings, setting{"query_only", int64(1)})
	case writing:
		settings = append(settings, setting{"journal_mode", "wal"}, setting{"wal_autocheckpoint", int64(0)})
	case building:
		settings = append(settings, setting{"main.journal_mode", "delete"})
	}
	for _, s := range settings {
		rows, err := conn.Query("PRAGMA "+s.pragma, nil)
		if err != nil {
			return err
		}
		var row [1]driver.Value
		err = rows.Next(row[:])
		rows.Close()
		if err != nil {
			return fmt.Errorf("read back %s: %w", s.pragma, err)
		}
		if got := row[0]; got != s.want {
			if text, ok := got.([]byte); !ok || string(text) != s.want {
				return fmt.Errorf("%s is %v, not %v", s.pragma, got, s.want)
			}
		}
	}
	return nil
}

// maintainDigest gives a write connection the triggers that maintain the content digest.
func (c *connector) maintainDigest(conn *sqlite3.SQLiteConn) error {
	if c.mode != writing {
		return nil
	}
	h := newRowHasher(c.digestKey)
	moved := func(set string, count int64, text []byte) int64 {
		if set == "slots" {
			c.moved.slots.move(count, h.hash(text))
		} else {
			c.moved.content.move(count, h.hash(text))
		}
		return 0
	}
	if err := conn.RegisterFunc(movedFunction, moved, false); err != nil {
		return err
	}
	version, err := queryRows(conn, `PRAGMA user_version`)
	if err != nil || version[0][0] != c.schema {
		return err
	}
	found, err := queryRows(conn, columnsQuery)
	if err != nil {
		return err
	}
	tables := columns{}
	for _, r := range found {
		tables.add(fmt.Sprintf("%s", r[0]), column{
			name:    fmt.Sprintf("%s", r[1]),
			notNull: r[2] == int64(1),
			blob:    r[3] == int64(1),
		})
	}
	_, err = conn.Exec(tables.triggers(c.schema), nil)
	return err
}

// queryRows returns the rows of a short query on a connection that has no pool yet.
func queryRows(conn *sqlite3.SQLiteConn, query string) (found [][]driver.Value, err error) {
	rows, err := conn.Query(query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for {
		row := make([]driver.Value, len(rows.Columns()))
		if err := rows.Next(row); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		found = append(found, row)
	}
}

// rawKey is the form in which SQLCipher takes a key and a salt as they are.
func rawKey(key []byte, id KeyID) string { return "x'" + hex.EncodeToString(key) + id.String() + "'" }

// Driver implements [driver.Connector].
func (c *connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

// Close implements [io.Closer]: it is called when the pool closes.
func (c *connector) Close() error {
	wipe(c.key)
	c.key = nil
	wipe(c.digestKey)
	return nil
}

var _ io.Closer = (*connector)(nil)

// mapDriverError adds the sentinel for what SQLite says: [ErrDamaged] for a
// page that fails its HMAC or makes no sense, [ErrLocked] for a lock held too
// long.
func mapDriverError(err error) error {
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

// flushFailed reports whether a commit failed at the disk. Its pages may have been
// written all the same.
func flushFailed(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == sqlite3.ErrIoErr
}

// OpenPlaintext opens somebody else's unencrypted SQLite database for reading.
// It follows the file's write-ahead log, so a row that its program has not
// checkpointed yet is seen. It returns [ErrNotPlaintext] for anything but an
// SQLite database, [ErrAlreadyOpen] for a file that this process has open, as
// plaintext or as a vault's, and an error that matches [fs.ErrNotExist] when there
// is no file. The caller closes it.
func OpenPlaintext(ctx context.Context, path string) (*sql.DB, error) {
	inode, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if opened.hasBeside(path) || !opened.add(inode) {
		return nil, fmt.Errorf("%q: %w", path, ErrAlreadyOpen)
	}
	header, err := readHeader(path, len(plaintextHeader))
	if err == nil && string(header) != plaintextHeader {
		err = fmt.Errorf("%q: %w", path, ErrNotPlaintext)
	}
	if err != nil {
		opened.remove(inode)
		return nil, err
	}
	uri := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "mode=ro&_query_only=on"}
	db := sql.OpenDB(plaintextConnector{uri.String(), inode})
	if err := db.PingContext(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %q: %w", path, mapDriverError(err))
	}
	return db, nil
}

// CheckNotOpen refuses, with [ErrAlreadyOpen], a file that this process has open as a
// database, or SQLite's own file beside one: whoever opens it otherwise and closes it
// again drops the locks of the database.
func CheckNotOpen(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // whoever opens it says so
	}
	if opened.hasBeside(path) || opened.unless(info, func() error { return nil }) != nil {
		return fmt.Errorf("%q: %w", path, ErrAlreadyOpen)
	}
	return nil
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

type plaintextConnector struct {
	uri   string
	inode os.FileInfo
}

// Connect implements [driver.Connector].
func (c plaintextConnector) Connect(context.Context) (driver.Conn, error) {
	return c.Driver().Open(c.uri)
}

// Close implements [io.Closer]: it is called when the pool has closed.
func (c plaintextConnector) Close() error {
	opened.remove(c.inode)
	return nil
}

var _ io.Closer = plaintextConnector{}

// Driver implements [driver.Connector].
func (c plaintextConnector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }
