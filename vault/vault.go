package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// Vault is an open vault. It is safe for concurrent use. Close it once, when
// nobody uses it any more.
type Vault struct {
	cfg    Config
	paths  paths
	source Source
	id     KeyID

	lock  *durable.Lock // held shared while open; nil inside a transition
	write *durable.Lock // held for each write transaction and checkpoint
	inode os.FileInfo
	mode  connMode // of the write connection

	sealer    sealer
	dbKey     []byte
	check     string
	vouched   bool // the slots file agreed that the key is the right one
	readOnly  bool
	unsettled error // why nothing may change the vault

	mu             sync.Mutex // guards what follows
	readers        *sql.DB
	writer         *sql.DB
	closed         bool
	nextCheckpoint int64 // size of the log in bytes that calls for the next one
}

const (
	maxReaders = 8
	// checkpointSize is where the write-ahead log is folded into the database.
	checkpointSize = 4 << 20
)

// attach makes a handle of the database at db under a key. It reads nothing.
func attach(cfg Config, p paths, db string, key *Key, mode connMode) (*Vault, error) {
	inode, err := os.Stat(db)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	p.db = db
	return &Vault{
		cfg:            cfg,
		paths:          p,
		id:             key.id,
		write:          durable.NewLock(p.write),
		inode:          inode,
		mode:           mode,
		sealer:         sealer{key: key.derive(purposeSeal)},
		dbKey:          key.derive(purposeSQLCipher),
		check:          key.check(),
		nextCheckpoint: checkpointSize,
	}, nil
}

// Path returns the database's absolute path.
func (v *Vault) Path() string { return v.paths.db }

// Source returns where the key came from.
func (v *Vault) Source() Source { return v.source }

// pool returns one of the two pools, opening it when first asked for.
func (v *Vault) pool(mode connMode) (*sql.DB, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, ErrClosed
	}
	db, conns := &v.readers, maxReaders
	if mode != reading {
		db, conns = &v.writer, 1
	}
	if *db == nil {
		*db = sql.OpenDB(&connector{path: v.paths.db, key: append([]byte(nil), v.dbKey...), id: v.id, inode: v.inode, mode: mode})
		(*db).SetMaxOpenConns(conns)
		(*db).SetMaxIdleConns(conns)
	}
	return *db, nil
}

// Tx is a transaction. It is for the one goroutine that fn runs in.
type Tx struct {
	querier
	cfg    *Config
	now    time.Time
	sealer sealer
}

// querier is [sql.Tx] without its ending, which is View's and Update's.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Now returns the transaction's one instant: UTC, whole milliseconds.
func (tx *Tx) Now() time.Time { return tx.now }

func (tx *Tx) actor(ctx context.Context) Actor { return tx.cfg.actor(ctx) }

// transact runs fn in a transaction of the pool, and commits it when fn returns
// nil.
func (v *Vault) transact(ctx context.Context, db *sql.DB, fn func(tx *Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", mapDriverError(err))
	}
	defer tx.Rollback()
	if err := fn(v.tx(tx)); err != nil {
		return mapDriverError(err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", mapDriverError(err))
	}
	return nil
}

func (v *Vault) tx(q querier) *Tx {
	return &Tx{querier: q, cfg: &v.cfg, now: v.cfg.now(), sealer: v.sealer}
}

// View runs fn in a read transaction: one snapshot, beside other readers and a
// writer. The error of fn is returned; damage met on the way matches
// [ErrDamaged].
func (v *Vault) View(ctx context.Context, fn func(tx *Tx) error) error {
	db, err := v.pool(reading)
	if err != nil {
		return err
	}
	return v.transact(ctx, db, fn)
}

// Update runs fn in a write transaction and commits it when fn returns nil:
// then the change is on the disk. It waits for other writers, of any process,
// up to [Config.Wait], and then returns [ErrLocked]. On any error nothing is
// changed. The error of fn is returned.
func (v *Vault) Update(ctx context.Context, fn func(tx *Tx) error) error {
	switch {
	case v.readOnly:
		return ErrReadOnly
	case v.unsettled != nil:
		return fmt.Errorf("%w: %w", ErrUnsettled, v.unsettled)
	}
	return v.locked(ctx, func() error { return v.update(ctx, fn) })
}

// locked runs fn under the write lock. A commit that restarts the write-ahead
// log while another connection checkpoints can lose pages in the SQLite under
// our driver, so every write transaction and every checkpoint of any process
// happens under this lock.
func (v *Vault) locked(ctx context.Context, fn func() error) error {
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	if err := v.write.Exclusive(wait); err != nil {
		return lockError(ctx, v.write, err)
	}
	defer v.write.Unlock()
	return fn()
}

// update is Update for who holds the write lock.
func (v *Vault) update(ctx context.Context, fn func(tx *Tx) error) error {
	db, err := v.pool(v.mode)
	if err != nil {
		return err
	}
	if err := v.transact(ctx, db, fn); err != nil {
		return err
	}
	v.foldLog(ctx, db)
	return nil
}

// foldLog checkpoints when the write-ahead log is large. The write lock is
// held. A reader in the middle of a transaction keeps the log from being
// emptied; it is then asked again only after the log grew as much again.
func (v *Vault) foldLog(ctx context.Context, db *sql.DB) {
	info, err := os.Stat(v.paths.db + "-wal")
	if err != nil || info.Size() < v.nextCheckpoint {
		return
	}
	done, err := checkpoint(ctx, db)
	if done {
		v.nextCheckpoint = checkpointSize
		return
	}
	v.nextCheckpoint = info.Size() + checkpointSize
	if err != nil {
		v.cfg.log().Warn("the write-ahead log could not be folded into the database", "error", err)
	}
}

// checkpoint copies the log into the database and empties it, without waiting
// for readers. It reports whether the log is empty. The write lock is held.
func checkpoint(ctx context.Context, db *sql.DB) (bool, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, `PRAGMA busy_timeout = 0`); err != nil {
		return false, err
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), `PRAGMA busy_timeout = 5000`)
	var busy, logged, copied int
	if err := conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &logged, &copied); err != nil {
		return false, mapDriverError(err)
	}
	return busy == 0, nil
}

// Close closes the vault and wipes its keys. Its last connection folds the
// write-ahead log into the database.
func (v *Vault) Close() error {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return ErrClosed
	}
	v.closed = true
	v.mu.Unlock()

	// SQLite's checkpoint at the last close holds the database alone, so
	// closing without the lock, when it cannot be had, risks nothing.
	wait, cancel := context.WithTimeout(context.Background(), v.cfg.wait())
	defer cancel()
	held := v.write.Exclusive(wait) == nil
	var errs []error
	if v.writer != nil {
		errs = append(errs, v.writer.Close())
	}
	if v.readers != nil {
		errs = append(errs, v.readers.Close())
	}
	if held {
		errs = append(errs, v.write.Unlock())
	}
	wipe(v.dbKey)
	wipe(v.sealer.key)
	opened.remove(v.inode)
	if v.lock != nil {
		errs = append(errs, v.lock.Unlock())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close vault: %w", err)
	}
	return nil
}

// lockError names who holds a lock that could not be had.
func lockError(ctx context.Context, l *durable.Lock, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("take lock %q: %w", l.Path(), err)
	}
	holders := durable.Holders(l.Path())
	if len(holders) == 0 {
		return fmt.Errorf("%w: waited in vain for the lock %q", ErrLocked, l.Path())
	}
	return fmt.Errorf("%w by %v", ErrLocked, holders)
}

// openFiles is the set of databases that this process has open, by device and
// inode. POSIX drops a process's locks on a file when it closes any descriptor
// of it, so opening a database twice would let another process delete the
// write-ahead log in use.
type openFiles struct {
	mu    sync.Mutex
	files map[[2]uint64]bool
}

// opened is the one variable of this package: what it guards belongs to the
// process.
var opened = openFiles{files: map[[2]uint64]bool{}}

func fileID(info os.FileInfo) [2]uint64 {
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint64{uint64(st.Dev), uint64(st.Ino)}
}

// add reports false when the file is open already.
func (o *openFiles) add(info os.FileInfo) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.files[fileID(info)] {
		return false
	}
	o.files[fileID(info)] = true
	return true
}

func (o *openFiles) remove(info os.FileInfo) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.files, fileID(info))
}
