package sqlcipher

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	sqlite3 "github.com/mutecomm/go-sqlcipher/v4"
)

type connMode int

const (
	reading  connMode = iota // query only, takes no write lock
	writing                  // immediate transactions in a write-ahead log
	building                 // as writing, but with a rollback journal, so that no side file is left
)

// connector opens keyed connections of a database. Each connection gets its key here. The
// driver's other ways do not work: a pool keeps its DSN, and with it the key, in a string for
// its whole life; and ConnectHook runs too late to give a key.
type connector struct {
	db   *DB
	mode connMode
}

var _ driver.Connector = connector{}

// Driver implements [driver.Connector].
func (c connector) Driver() driver.Driver { return &sqlite3.SQLiteDriver{} }

// Connect implements [driver.Connector].
func (c connector) Connect(context.Context) (driver.Conn, error) {
	path := c.db.options.Path
	now, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	// SQLite would create an empty database if there were none.
	if !os.SameFile(now, c.db.info) {
		return nil, fmt.Errorf("open database: the file %q was replaced while it was open", path)
	}
	if len(c.db.options.Key) != KeySize { // the key is wiped; SQLCipher would use a shorter one as a passphrase
		return nil, ErrClosed
	}
	options := url.Values{
		"_pragma_key":   {rawKey(c.db.options.Key, c.db.options.Salt)},
		"_busy_timeout": {"5000"},
		"_foreign_keys": {"on"},
	}
	synchronous := "FULL"
	begin := "BEGIN IMMEDIATE"
	// A setting is valid for one connection only, so each connection sets all of them. Without
	// cipher_memory_security, SQLCipher still wipes and locks key material. With temp_store in
	// memory no plaintext is written to the disk.
	pragmas := `PRAGMA cipher_memory_security = OFF; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 0;`
	switch c.mode {
	case reading:
		begin = "BEGIN" // else each read would take the write lock
		cache := 16384
		if c.db.mode == building { // each page is read once
			cache = 1024
		}
		pragmas += fmt.Sprintf(`PRAGMA cache_size = -%d; PRAGMA query_only = ON;`, cache)
	case writing:
		options.Set("_journal_mode", "WAL")
		pragmas += `PRAGMA cache_size = -16384;`
	case building:
		options.Set("_journal_mode", "DELETE")
		// Nobody reads the file before the caller has flushed all of it.
		synchronous = "OFF"
		pragmas += `PRAGMA cache_size = -16384;`
	}
	options.Set("_synchronous", synchronous)
	d := &sqlite3.SQLiteDriver{ConnectHook: func(conn *sqlite3.SQLiteConn) error { return c.prepare(conn, pragmas) }}
	conn, err := d.Open(path + "?" + options.Encode())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", MapError(err))
	}
	raw := conn.(*sqlite3.SQLiteConn)
	if err := c.checkSettings(raw); err != nil {
		raw.Close()
		return nil, fmt.Errorf("open database: %w", MapError(err))
	}
	return newStatementConn(raw, begin), nil
}

// prepare runs the pragmas on a new connection, and what the options want.
func (c connector) prepare(conn *sqlite3.SQLiteConn, pragmas string) error {
	if _, err := conn.Exec(pragmas, nil); err != nil {
		return err
	}
	if c.mode == writing && c.db.options.Prepare != nil {
		return c.db.options.Prepare(&Conn{conn})
	}
	if old := c.db.options.Old; old != nil {
		_, err := conn.Exec(`ATTACH ? AS old KEY ?`, []driver.Value{old.Path, rawKey(old.Key, old.Salt)})
		return err
	}
	return nil
}

// rawKey returns a key and a salt in the form in which SQLCipher uses them unchanged.
func rawKey(key []byte, salt Salt) string {
	return "x'" + hex.EncodeToString(key) + hex.EncodeToString(salt[:]) + "'"
}

// checkSettings reads back the settings that durability and secrecy need. SQLite ignores a
// setting that it does not know or cannot make, and returns no error.
func (c connector) checkSettings(conn *sqlite3.SQLiteConn) error {
	type setting struct {
		pragma string
		want   any
	}
	settings := []setting{
		{"temp_store", int64(2)}, // MEMORY
		{"foreign_keys", int64(1)},
		{"mmap_size", int64(0)}, // pages stay where they are wiped
		{"wal_autocheckpoint", int64(0)},
	}
	if c.mode != building {
		settings = append(settings, setting{"synchronous", int64(2)}) // FULL: a commit is flushed before it is reported
	}
	switch c.mode {
	case reading:
		settings = append(settings, setting{"query_only", int64(1)})
	case writing:
		settings = append(settings, setting{"journal_mode", "wal"})
	case building:
		settings = append(settings, setting{"main.journal_mode", "delete"})
	}
	for _, s := range settings {
		rows, err := (&Conn{conn}).Query("PRAGMA " + s.pragma)
		if err == nil && len(rows) != 1 {
			err = io.EOF
		}
		if err != nil {
			return fmt.Errorf("read back %s: %w", s.pragma, err)
		}
		if got := rows[0][0]; got != s.want {
			return fmt.Errorf("%s is %v, not %v", s.pragma, got, s.want)
		}
	}
	return nil
}

// Conn is a new connection that is not in use yet.
type Conn struct{ raw *sqlite3.SQLiteConn }

// Exec runs statements.
func (c *Conn) Exec(statements string) error {
	_, err := c.raw.Exec(statements, nil)
	return err
}

// Function adds an SQL function to the connection.
func (c *Conn) Function(name string, fn any) error { return c.raw.RegisterFunc(name, fn, false) }

// Query returns the rows of a short query. The values are int64, float64, string and nil.
func (c *Conn) Query(query string) (found [][]any, err error) {
	rows, err := c.raw.Query(query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for {
		values := make([]driver.Value, len(rows.Columns()))
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		row := make([]any, len(values))
		for i, v := range values {
			row[i] = v
			if text, ok := v.([]byte); ok {
				row[i] = string(text)
			}
		}
		found = append(found, row)
	}
}
