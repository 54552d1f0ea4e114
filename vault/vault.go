package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// Vault is an open vault. It is safe for concurrent use. Close it once, when nobody uses it any
// more.
type Vault struct {
	cfg    Config // not the store's, which a rotation replaces: this one is also read without the gate
	paths  paths
	source Source

	lock         *durable.Lock // held shared while open; nil inside a transition
	write        *durable.Lock // held for each write transaction and checkpoint
	anchorLock   *durable.Lock // held while the keyring's anchor is written; see anchor.go
	vouched      bool          // the slots file confirmed the key
	opener       opener        // set if an identity opened the vault
	vouchToStore string        // the vouch to store in the opener's slot; or ""
	readOnly     bool

	// gate admits transactions of this process side by side. A rotation takes all of it.
	gate *semaphore.Weighted
	// The fields below change with the key. Only a caller that holds the whole gate changes
	// them.
	*store
	epoch int64 // counts how often this handle switched to another database

	claim *sqlcipher.Claim // nil: the caller that waits for this handle holds the claim

	mu             sync.Mutex // guards what follows
	closed         bool
	onClose        []func()
	unsettled      error       // why nothing may change the vault
	slotsSeen      os.FileInfo // of the slots file at the last comparison
	anchorProgress anchorProgress
	anchorItem     *anchorItem // that the keyring returned with the key; nil once it is compared
}

// everybody is the size of the whole gate.
const everybody = 1 << 30

// attach makes a handle of the vault under a key. It copies the key and reads nothing.
func attach(cfg Config, p paths, key *Key) (*Vault, error) {
	s, err := openStore(cfg, p.db, key, "")
	if err != nil {
		return nil, err
	}
	return &Vault{
		cfg:        cfg,
		paths:      p,
		write:      durable.NewLock(p.write),
		anchorLock: durable.NewLock(p.anchor),
		gate:       semaphore.NewWeighted(everybody),
		store:      s,
	}, nil
}

// Path returns the database's absolute path.
func (v *Vault) Path() string { return v.paths.db }

// Source returns the source of the key.
func (v *Vault) Source() Source { return v.source }

// enter waits for a running rotation. No rotation starts before leave.
func (v *Vault) enter(ctx context.Context) error { return v.gate.Acquire(ctx, 1) }

func (v *Vault) leave() { v.gate.Release(1) }

// View runs fn in a read transaction, which sees one snapshot. Other readers and a writer may
// run at the same time. View waits for a running rotation. fn must not call the Vault: a
// rotation waits for fn. The error of fn is returned. If fn meets damage, the error matches
// [ErrDamaged].
func (v *Vault) View(ctx context.Context, fn func(tx *Tx) error) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	return v.view(ctx, fn)
}

// Update runs fn in a write transaction and commits it if fn returns nil. When Update returns
// nil, the change is on the disk. Update waits for writers of all processes, up to
// [Config.Wait], and then returns [ErrLocked]. On any error but [ErrUnknownOutcome] nothing is
// changed. fn must not call the Vault. The error of fn is returned.
func (v *Vault) Update(ctx context.Context, fn func(tx *Tx) error) error {
	return v.changing(ctx, func() error { return v.update(ctx, fn) })
}

// changing enters the gate and runs fn under the write lock, if the vault may be changed.
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

// resettle returns why nothing may change the vault. If the slots file could not be written
// before, it tries again first. The caller holds the gate and does not hold the write lock.
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

// afterCommit limits the time of the work after a commit.
const afterCommit = 10 * time.Second

// afterwards is the context of the work after a commit: the slots file, the checkpoint and the
// anchor. The change is made, so this work must not stop because the caller was cancelled.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), afterCommit)
}

// changeable returns an error that says why nothing may change the vault, or nil.
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

// locked runs fn under the write lock. The SQLite in our driver can lose pages when a commit
// restarts the write-ahead log while another connection checkpoints. So every write transaction
// and every checkpoint, in every process, runs under this lock.
func (v *Vault) locked(ctx context.Context, fn func() error) error {
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	if err := v.write.Exclusive(wait); err != nil {
		return lockError(ctx, v.write, err)
	}
	defer v.write.Unlock()
	return fn()
}

// update is Update. The caller holds the gate and the write lock.
func (v *Vault) update(ctx context.Context, fn func(tx *Tx) error) error {
	audited, err := v.store.update(ctx, fn)
	if err != nil {
		return err
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	v.mark(audited)
	large, err := v.db.CheckpointIfLarge(ctx)
	if large && err == nil {
		v.markCheckpoint()
	}
	if err != nil {
		v.cfg.log().Warn("the write-ahead log could not be checkpointed", "error", err)
	}
	return nil
}

// OnClose makes Close call fn, when nobody uses the vault any more and before it wipes the
// keys: for what a caller keeps in memory of the vault's secrets. fn must not call the Vault.
func (v *Vault) OnClose(fn func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onClose = append(v.onClose, fn)
}

// Close closes the vault and wipes its keys. It waits until every running View, Update and
// rotation has ended. Calls that begin later, and a second Close, return [ErrClosed]. SQLite
// checkpoints the write-ahead log when the last connection closes.
func (v *Vault) Close() error {
	ctx := context.Background()
	// The whole gate: a transaction that still ran would seal under a wiped key, and would read
	// a database without its locks.
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
	if v.lock != nil { // not a handle that Open refused
		v.finish(ctx)
	}
	v.mu.Lock()
	v.closed = true
	forget := v.onClose
	v.mu.Unlock()
	for _, fn := range forget {
		fn()
	}
	// SQLite's checkpoint at the last close has the database to itself. So closing without the
	// write lock is safe, if another process holds it or if this one wrote nothing.
	held := false
	if v.db.Wrote() {
		held, _ = v.write.TryExclusive()
	}
	errs := []error{v.store.close()}
	if held {
		errs = append(errs, v.write.Unlock())
	}
	if v.claim != nil {
		v.claim.Release()
	}
	if v.lock != nil {
		errs = append(errs, v.lock.Unlock())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close vault: %w", err)
	}
	return nil
}

// finish writes what must be written before the vault is closed: the slots file, if it is
// missing or differs from the table, and the anchor. It waits for the write lock only if the
// slots file must be written, so a handle that only read closes at once. The caller holds the
// whole gate.
func (v *Vault) finish(ctx context.Context) {
	v.stopAnchor()
	if !v.readOnly && v.slotsFileStale(ctx) {
		if err := v.locked(ctx, func() error { return v.settle(ctx) }); err != nil {
			v.cfg.log().Warn("closing the vault: the slots file could not be brought up to date; the next open will do it", "error", err)
		}
	}
	// A handle that only read does not wait for a slow keyring.
	wait := anchorShortWait
	v.mu.Lock()
	if v.anchorProgress.changedHere {
		wait = anchorWait
	}
	v.mu.Unlock()
	v.writeAnchor(ctx, wait)
}

// lastTry is how long to try for the exclusive lock without really waiting: for a first
// attempt, or after the time to wait is over.
const lastTry = 50 * time.Millisecond
