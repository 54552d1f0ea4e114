package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// Vault is an open vault. It is safe for concurrent use. Close it once, when
// nobody uses it any more.
type Vault struct {
	cfg    Config
	paths  paths
	source Source
	mode   connMode // of the write connection

	lock         *durable.Lock // held shared while open; nil inside a transition
	write        *durable.Lock // held for each write transaction and checkpoint
	anchorLock   *durable.Lock // held while the keyring's anchor is written; see anchor.go
	vouched      bool          // the slots file agreed that the key is the right one
	opener       opener        // where an identity opened it
	vouchToStore string        // the vouch of the opener's slot, to be stored; or ""
	readOnly     bool
	listed       bool // in opened, until it is closed

	// gate lets transactions of this process in side by side, and a rotation
	// alone.
	gate *semaphore.Weighted
	// These change with the key, by who has the gate alone.
	key    *Key
	inode  os.FileInfo
	sealer sealer
	old    *attachment // of a database being built: what it is copied from, or nil

	versions versions
	moved    digest // how the transaction of the write connection changed the digest
	// log is the write-ahead log as this handle first found it.
	log atomic.Pointer[os.FileInfo]

	mu             sync.Mutex // guards what follows
	readers        *sql.DB
	writer         *sql.DB
	closed         bool
	nextCheckpoint int64       // size of the log in bytes that calls for the next one
	unsettled      error       // why nothing may change the vault
	slotsSeen      os.FileInfo // of the slots file when it was last compared
	anchoring      anchoring
}

const (
	maxReaders = 8
	// checkpointSize is where the write-ahead log is folded into the database.
	checkpointSize = 4 << 20
	// everybody is all of the gate.
	everybody = 1 << 30
)

// attach makes a handle of the database at db under a key, of which it keeps a
// copy. It reads nothing.
func attach(cfg Config, p paths, db string, key *Key, mode connMode) (*Vault, error) {
	inode, err := os.Stat(db)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	p.db = db
	v := &Vault{
		cfg:            cfg,
		paths:          p,
		write:          durable.NewLock(p.write),
		anchorLock:     durable.NewLock(p.anchor),
		mode:           mode,
		gate:           semaphore.NewWeighted(everybody),
		nextCheckpoint: checkpointSize,
	}
	v.adopt(key, inode, "")
	return v, nil
}

// adopt takes a copy of the key of the file that is in place. The vault's id is
// "" as long as it was not read.
func (v *Vault) adopt(key *Key, inode os.FileInfo, vaultID string) {
	copied := *key
	v.key, v.inode = &copied, inode
	v.sealer = newSealer(key, vaultID)
}

// wipe takes the keys out of memory: best effort.
func (v *Vault) wipe() {
	v.key.wipe()
	v.sealer.wipe()
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
		*db = sql.OpenDB(v.connector(mode))
		(*db).SetMaxOpenConns(conns)
		(*db).SetMaxIdleConns(conns)
	}
	return *db, nil
}

func (v *Vault) connector(mode connMode) *connector {
	return &connector{
		path:      v.paths.db,
		key:       v.key.derive(purposeSQLCipher),
		id:        v.key.id,
		inode:     v.inode,
		mode:      mode,
		old:       v.old,
		digestKey: v.key.derive(purposeDigest),
		moved:     &v.moved,
		schema:    v.cfg.schemaVersion(),
	}
}

// closePools closes all connections. The last of them folds the log in.
func (v *Vault) closePools() error {
	v.mu.Lock()
	writer, readers := v.writer, v.readers
	v.writer, v.readers = nil, nil
	v.mu.Unlock()
	v.log.Store(nil)
	errs := []error{v.closeVersions()}
	for _, db := range []*sql.DB{writer, readers} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Tx is a transaction. It is for the one goroutine that fn runs in.
type Tx struct {
	querier
	cfg     *Config
	now     time.Time
	sealer  sealer
	audited auditing // what Audit wrote
	// moved is how the rows have changed since the last audit row; nil: nobody keeps
	// track, and the next audit row computes the digest from the rows as they stand.
	moved  *digest
	check  *contentCheck // under way, or nil
	copied *copiedCheck  // under way, or nil
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
// nil. It tells what fn wrote into the audit log. On the write connection a change of
// rows that the digest covers must have its audit row.
func (v *Vault) transact(ctx context.Context, db *sql.DB, writer bool, fn func(tx *Tx) error) (auditing, error) {
	sqlTx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("begin transaction: %w", mapDriverError(err))
	}
	defer sqlTx.Rollback()
	tx := v.tx(sqlTx)
	if writer {
		v.moved = digest{}
		tx.moved = &v.moved
	}
	if err := fn(tx); err != nil {
		return 0, mapDriverError(err)
	}
	if tx.moved != nil && *tx.moved != (digest{}) {
		return 0, errors.New("commit: rows were changed that no audit row tells of")
	}
	if tx.copied != nil {
		return 0, errors.New("commit: rows were copied that no audit row ends the check of")
	}
	switch err := sqlTx.Commit(); {
	case err == nil:
	case v.mode == writing && flushFailed(err):
		return 0, fmt.Errorf("commit: %w: %w", ErrUnknownOutcome, err)
	default:
		return 0, fmt.Errorf("commit: %w", mapDriverError(err))
	}
	return tx.audited, nil
}

func (v *Vault) tx(q querier) *Tx {
	return &Tx{querier: q, cfg: &v.cfg, now: v.cfg.now(), sealer: v.sealer}
}

// enter waits until no rotation is under way, and keeps the next one out until
// leave.
func (v *Vault) enter(ctx context.Context) error { return v.gate.Acquire(ctx, 1) }

func (v *Vault) leave() { v.gate.Release(1) }

// View runs fn in a read transaction: one snapshot, beside other readers and a
// writer. It waits while a rotation is under way; fn must not call the Vault,
// for a rotation waits for fn. The error of fn is returned; damage met on the way
// matches [ErrDamaged].
func (v *Vault) View(ctx context.Context, fn func(tx *Tx) error) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	return v.view(ctx, fn)
}

// view is View for who is inside the gate.
func (v *Vault) view(ctx context.Context, fn func(tx *Tx) error) error {
	db, err := v.pool(reading)
	if err != nil {
		return err
	}
	_, err = v.transact(ctx, db, false, fn)
	if v.log.Load() == nil && v.mode != building {
		v.checkLog() // so that it is noted early
	}
	return err
}

// checkLog sees that the write-ahead log is the one that this handle first found,
// or takes note of it. SQLite keeps the log while a connection is open; whoever
// takes it away does not know of the locks, and what is committed then is lost.
func (v *Vault) checkLog() error {
	now, err := os.Stat(v.paths.db + "-wal")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLogGone, err)
	}
	if v.log.CompareAndSwap(nil, &now) || os.SameFile(*v.log.Load(), now) {
		return nil
	}
	return fmt.Errorf("%w: %q was replaced while the vault was open", ErrLogGone, v.paths.db+"-wal")
}

// Update runs fn in a write transaction and commits it when fn returns nil:
// then the change is on the disk. It waits for other writers, of any process,
// up to [Config.Wait], and then returns [ErrLocked]. On any error but
// [ErrUnknownOutcome] nothing is changed. fn must not call the Vault. The error of fn is returned.
func (v *Vault) Update(ctx context.Context, fn func(tx *Tx) error) error {
	return v.changing(ctx, func() error { return v.update(ctx, fn) })
}

// changing runs fn inside the gate and under the write lock, where the vault may
// be changed at all.
func (v *Vault) changing(ctx context.Context, fn func() error) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	if err := v.resettle(ctx); err != nil {
		return err
	}
	defer v.followAnchor(ctx)
	return v.locked(ctx, fn)
}

// resettle returns why nothing may change the vault, after another attempt where
// the slots file could not be written before. The caller is inside the gate, and
// does not hold the write lock.
func (v *Vault) resettle(ctx context.Context) error {
	err := v.changeable()
	if !errors.Is(err, ErrUnsettled) {
		return err
	}
	if err := v.locked(ctx, func() error { return v.settle(ctx) }); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsettled, err)
	}
	return v.changeable()
}

// afterCommit limits what follows a commit.
const afterCommit = 10 * time.Second

// afterwards is the context of what follows a commit. The change is made, so its
// slots file, its checkpoint and its anchor no longer depend on whether the caller
// still waits.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), afterCommit)
}

// changeable says why nothing may change the vault, if so.
func (v *Vault) changeable() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return ErrClosed
	case v.readOnly:
		return ErrReadOnly
	case v.unsettled != nil:
		return fmt.Errorf("%w: %w", ErrUnsettled, v.unsettled)
	}
	return nil
}

func (v *Vault) setUnsettled(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.unsettled = err
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

// update is Update for who is inside the gate and holds the write lock.
func (v *Vault) update(ctx context.Context, fn func(tx *Tx) error) error {
	db, err := v.pool(v.mode)
	if err != nil {
		return err
	}
	audited, err := v.transact(ctx, db, v.mode == writing, fn)
	if err != nil {
		return err
	}
	if v.mode != building {
		if err := v.checkLog(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	v.mark(audited)
	v.foldLog(ctx, db)
	return nil
}

// foldLog checkpoints when the write-ahead log is large. The write lock is
// held. A reader in the middle of a transaction keeps the log from being
// emptied; it is then asked again only after the log grew as much again.
func (v *Vault) foldLog(ctx context.Context, db *sql.DB) {
	v.mu.Lock()
	next := v.nextCheckpoint
	v.mu.Unlock()
	info, err := os.Stat(v.paths.db + "-wal")
	if err != nil || info.Size() < next {
		return
	}
	done, err := checkpoint(ctx, db)
	if err == nil {
		v.markCheckpoint()
	}
	next = checkpointSize
	if !done {
		next += info.Size()
	}
	v.mu.Lock()
	v.nextCheckpoint = next
	v.mu.Unlock()
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

// Close closes the vault and wipes its keys. It waits until every View, Update
// and rotation that is under way has ended; those that begin later, and a second
// Close, get [ErrClosed]. Its last connection folds the write-ahead log into the
// database.
func (v *Vault) Close() error {
	ctx := context.Background()
	// The whole gate: a transaction that still ran would seal under a wiped key,
	// and read a database whose locks are gone.
	if err := v.gate.Acquire(ctx, everybody); err != nil {
		return err
	}
	defer v.gate.Release(everybody)

	v.mu.Lock()
	closed := v.closed
	v.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if v.lock != nil { // not a handle that was refused
		v.finish(ctx)
	}
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	// SQLite's checkpoint at the last close holds the database alone, so closing
	// without the lock, when another has it, risks nothing.
	held, _ := v.write.TryExclusive()
	errs := []error{v.closePools()}
	if held {
		errs = append(errs, v.write.Unlock())
	}
	v.wipe()
	if v.listed {
		opened.remove(v.inode)
	}
	if v.lock != nil {
		errs = append(errs, v.lock.Unlock())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close vault: %w", err)
	}
	return nil
}

// finish writes what is still to be written when the vault is closed: the slots
// file where it is gone or not as the table says, and the anchor. Only then does it
// wait for the write lock: who only read leaves at once. The caller has the gate to
// itself.
func (v *Vault) finish(ctx context.Context) {
	v.stopAnchor()
	if !v.readOnly && v.slotsFileStale(ctx) {
		if err := v.locked(ctx, func() error { return v.settle(ctx) }); err != nil {
			v.cfg.log().Warn("closing the vault: what is beside the database could not be brought up to date; the next open will", "error", err)
		}
	}
	// Who only read does not wait for a keyring that is slow to take it.
	wait := anchorGlance
	v.mu.Lock()
	if v.anchoring.own {
		wait = anchorWait
	}
	v.mu.Unlock()
	v.writeAnchor(ctx, wait)
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
	var names []string
	for _, h := range holders {
		names = append(names, h.String())
	}
	return fmt.Errorf("%w by %s", ErrLocked, strings.Join(names, ", "))
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

func links(info os.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Nlink) }

func fileID(info os.FileInfo) [2]uint64 {
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint64{uint64(st.Dev), uint64(st.Ino)}
}

// hasBeside reports whether path is SQLite's own file of a database that is open.
func (o *openFiles) hasBeside(path string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	for _, suffix := range sideFiles("") {
		db, ok := strings.CutSuffix(path, suffix)
		if !ok {
			continue
		}
		info, err := os.Stat(db)
		if err == nil && o.unless(info, func() error { return nil }) != nil {
			return true
		}
	}
	return false
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

// replace lists a file in place of another: who has that open has put this one
// where it was.
func (o *openFiles) replace(old, now os.FileInfo) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.files, fileID(old))
	o.files[fileID(now)] = true
}

// unless runs fn, and keeps the file from being opened meanwhile; or returns
// [ErrAlreadyOpen].
func (o *openFiles) unless(info os.FileInfo, fn func() error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.files[fileID(info)] {
		return ErrAlreadyOpen
	}
	return fn()
}

func (o *openFiles) remove(info os.FileInfo) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.files, fileID(info))
}
