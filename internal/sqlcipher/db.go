package sqlcipher

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// KeySize is the size of a raw key in bytes.
const KeySize = 32

const (
	maxReaders = 8
	// checkpointSize is the size of the write-ahead log at which a checkpoint is due.
	checkpointSize = 4 << 20
)

// Options says which database to open, and how.
type Options struct {
	Path string
	Key  []byte // of KeySize; the DB copies it, and wipes the copy when it is closed
	Salt Salt
	// Build is for a new database that nobody else knows. Nothing is flushed, and no side file
	// is left.
	Build bool
	// Old is another keyed database that the connections see as "old", or nil.
	Old *Attachment
	// Prepare is called with each new connection that writes, except while a database is being
	// built. Nil: not called.
	Prepare func(*Conn) error
}

// Attachment is another keyed database, as in [Options].
type Attachment struct {
	Path string
	Key  []byte
	Salt Salt
}

// DB is an open database. It is safe for concurrent use. The caller closes it when nobody uses
// it any more.
type DB struct {
	options Options
	info    os.FileInfo // of the file; no connection is made to another file
	mode    connMode    // of the connection that writes

	revision revision
	// log is the write-ahead log that this handle found first.
	log atomic.Pointer[os.FileInfo]

	mu             sync.Mutex // guards what follows
	readers        *sql.DB
	writer         *sql.DB
	closed         bool
	nextCheckpoint int64 // size of the log, in bytes, at which the next one is due
}

// Tx is a transaction: what [sql.Tx] has, without Commit and Rollback, which View and Update
// call. Rows must be closed before fn returns.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Open returns a handle of the database, which must exist. It reads nothing of the file: a
// wrong key of the right size is noticed at the first View. Connections are made when they are
// first needed.
func Open(o Options) (*DB, error) {
	if len(o.Key) != KeySize {
		return nil, fmt.Errorf("open database: the key has %d bytes, want %d", len(o.Key), KeySize)
	}
	info, err := os.Stat(o.Path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	o.Key = bytes.Clone(o.Key)
	if o.Old != nil {
		old := *o.Old
		old.Key = bytes.Clone(old.Key)
		o.Old = &old
	}
	db := &DB{options: o, info: info, mode: writing, nextCheckpoint: checkpointSize}
	if o.Build {
		db.mode = building
	}
	return db, nil
}

// pool returns one of the two pools. It opens the pool at the first call.
func (db *DB) pool(mode connMode) (*sql.DB, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil, ErrClosed
	}
	pool, conns := &db.readers, maxReaders
	if mode != reading {
		pool, conns = &db.writer, 1
	}
	if *pool == nil {
		*pool = sql.OpenDB(connector{db, mode})
		(*pool).SetMaxOpenConns(conns)
		(*pool).SetMaxIdleConns(conns)
	}
	return *pool, nil
}

// Writer returns the pool of the one connection that writes. Its transactions are not checked
// as those of [DB.Update] are.
func (db *DB) Writer() (*sql.DB, error) { return db.pool(db.mode) }

// Wrote reports whether the handle has a connection that writes.
func (db *DB) Wrote() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.writer != nil
}

// View runs fn in a read transaction, which sees one snapshot. Other readers and a writer may
// run at the same time. The error of fn is returned. If fn meets damage, the error matches
// [ErrDamaged].
func (db *DB) View(ctx context.Context, fn func(Tx) error) error {
	b := Batch{db: db, mode: reading}
	err := b.Run(ctx, fn)
	if err == nil {
		err = b.Commit()
	}
	if db.log.Load() == nil && db.mode != building {
		db.checkLog() // to record the log early
	}
	return err
}

// Update runs fn in a write transaction and commits it if fn returns nil. The caller holds the
// lock of all writers. On any error but [ErrUnknownOutcome] nothing is changed.
func (db *DB) Update(ctx context.Context, fn func(Tx) error) error {
	b := db.NewBatch()
	if err := b.Run(ctx, fn); err != nil {
		return err
	}
	return b.Commit()
}

// checkLog checks that the write-ahead log is still the one that this handle found first. The
// first call records it. SQLite keeps the log while a connection is open. A program that
// removes it ignores the locks, and later commits are lost.
func (db *DB) checkLog() error {
	path := db.options.Path + "-wal"
	now, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLogGone, err)
	}
	if db.log.CompareAndSwap(nil, &now) || os.SameFile(*db.log.Load(), now) {
		return nil
	}
	return fmt.Errorf("%w: %q was replaced while the database was open", ErrLogGone, path)
}

// Disconnect closes all connections. The next use of the handle makes new ones. If no other
// process has the database open, SQLite checkpoints the write-ahead log and removes it. Nobody
// may use the handle meanwhile.
func (db *DB) Disconnect() error {
	db.mu.Lock()
	writer, readers := db.writer, db.readers
	db.writer, db.readers = nil, nil
	db.mu.Unlock()
	db.log.Store(nil)
	errs := []error{db.revision.close()}
	for _, pool := range []*sql.DB{writer, readers} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(errs...)
}

// Close closes all connections for good and wipes the key.
func (db *DB) Close() error {
	db.mu.Lock()
	db.closed = true
	db.mu.Unlock()
	err := db.Disconnect()
	clear(db.options.Key)
	db.options.Key = nil
	if db.options.Old != nil {
		clear(db.options.Old.Key)
	}
	return err
}
