package sqlcipher

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

var testSalt = Salt{1, 2, 3}

func testKey() []byte { return bytes.Repeat([]byte{7}, KeySize) }

// build makes a database with a table t, and returns its path.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(Options{Path: path, Key: testKey(), Salt: testSalt, Build: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(t.Context(), func(tx Tx) error {
		_, err := tx.ExecContext(t.Context(), `CREATE TABLE t (x)`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.UseLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string, key []byte) *DB {
	t.Helper()
	db, err := Open(Options{Path: path, Key: key, Salt: testSalt})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func count(t *testing.T, db *DB) (n int, err error) {
	t.Helper()
	err = db.View(t.Context(), func(tx Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT count(*) FROM t`).Scan(&n)
	})
	return n, err
}

func insert(t *testing.T, db *DB) error {
	t.Helper()
	return db.Update(t.Context(), func(tx Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO t VALUES (1)`)
		return err
	})
}

func TestSalt(t *testing.T) {
	path := build(t)
	if salt, err := ReadSalt(path); err != nil || salt != testSalt {
		t.Errorf("%x, %v", salt, err)
	}
}

// TestKeys: SQLCipher would take a key of another size for a passphrase, and a wiped key for
// none.
func TestKeys(t *testing.T) {
	path := build(t)
	for _, n := range []int{0, KeySize - 1, KeySize + 1} {
		if db, err := Open(Options{Path: path, Key: make([]byte, n), Salt: testSalt}); err == nil {
			db.Close()
			t.Errorf("a key of %d bytes is taken", n)
		}
	}
	if _, err := count(t, open(t, path, make([]byte, KeySize))); !errors.Is(err, ErrDamaged) {
		t.Errorf("a wrong key: %v, want ErrDamaged", err)
	}
	db := open(t, path, testKey())
	if _, err := count(t, db); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := count(t, db); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	if conn, err := (connector{db, reading}).Connect(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a connection after Close: %v, %v, want ErrClosed", conn, err)
	}
}

// TestDisconnect: the handle continues with new connections and a new log.
func TestDisconnect(t *testing.T) {
	db := open(t, build(t), testKey())
	for range 2 {
		if err := insert(t, db); err != nil {
			t.Fatal(err)
		}
		log, err := os.Open(db.options.Path + "-wal") // so that the next one is another file
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if err := db.Disconnect(); err != nil {
			t.Fatal(err)
		}
		for _, path := range SideFiles(db.options.Path) {
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", path, err)
			}
		}
	}
	if n, err := count(t, db); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// TestRevision: it grows with each commit of another connection, and only then.
func TestRevision(t *testing.T) {
	path := build(t)
	db := open(t, path, testKey())
	first, err := db.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := db.Revision(t.Context()); err != nil || again != first {
		t.Errorf("%d, then %d, %v", first, again, err)
	}
	if err := insert(t, db); err != nil {
		t.Fatal(err)
	}
	if later, err := db.Revision(t.Context()); err != nil || later <= first {
		t.Errorf("%d, then %d, %v", first, later, err)
	}
}

// TestCheckpoint: a reader in a transaction prevents that the log is emptied. The checkpoint
// does not wait for it.
func TestCheckpoint(t *testing.T) {
	db := open(t, build(t), testKey())
	if err := insert(t, db); err != nil {
		t.Fatal(err)
	}
	if err := db.View(t.Context(), func(tx Tx) error {
		var n int
		if err := tx.QueryRowContext(t.Context(), `SELECT count(*) FROM t`).Scan(&n); err != nil {
			return err
		}
		if err := insert(t, db); err != nil {
			return err
		}
		emptied, err := db.Checkpoint(t.Context())
		if emptied {
			t.Error("the log is said to be empty beside a reader")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if emptied, err := db.Checkpoint(t.Context()); !emptied || err != nil {
		t.Errorf("%v, %v, want it emptied", emptied, err)
	}
	if info, err := os.Stat(db.options.Path + "-wal"); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestClaims: a file has one claim, under any name.
func TestClaims(t *testing.T) {
	path := build(t)
	claim, err := TakeClaim(path)
	if err != nil {
		t.Fatal(err)
	}
	link := path + ".link"
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeClaim(link); !errors.Is(err, ErrAlreadyOpen) {
		t.Errorf("by another name: %v, want ErrAlreadyOpen", err)
	}
	for _, p := range append(SideFiles(path), path) {
		if err := CheckNotOpen(p); !errors.Is(err, ErrAlreadyOpen) {
			t.Errorf("%s: %v, want ErrAlreadyOpen", p, err)
		}
	}
	other := build(t)
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if err := claim.Move(path); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeClaim(path); !errors.Is(err, ErrAlreadyOpen) {
		t.Errorf("after a move: %v, want ErrAlreadyOpen", err)
	}
	free, err := TakeClaim(link)
	if err != nil {
		t.Errorf("the file left behind: %v", err)
	} else {
		free.Release()
	}
	claim.Release()
	if claim, err = TakeClaim(path); err != nil {
		t.Errorf("after Release: %v", err)
	} else {
		claim.Release()
	}
}
