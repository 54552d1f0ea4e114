package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// Vault is an open vault. It is safe for concurrent use. Close it once, when
// nobody uses it any more.
type Vault struct {
	cfg    Config // not the store's, which a rotation replaces: it is read outside the gate too
	paths  paths
	source Source

	lock         *durable.Lock // held shared while open; nil inside a transition
	write        *durable.Lock // held for each write transaction and checkpoint
	anchorLock   *durable.Lock // held while the keyring's anchor is written; see anchor.go
	vouched      bool          // the slots file agreed that the key is the right one
	opener       opener        // where an identity opened it
	vouchToStore string        // the vouch of the opener's slot, to be stored; or ""
	readOnly     bool

	// gate lets transactions of this process in side by side, and a rotation
	// alone.
	gate *semaphore.Weighted
	// These change with the key, by who has the gate alone.
	*store
	epoch int64 // how often this handle took up another database

	claim *sqlcipher.Claim // nil: somebody else's, who waits for this handle

	mu             sync.Mutex // guards what follows
	closed         bool
	unsettled      error       // why nothing may change the vault
	slotsSeen      os.FileInfo // of the slots file when it was last compared
	anchorProgress anchorProgress
	anchorItem     *anchorItem // that the keyring gave with the key, until it is compared
}

// everybody is all of the gate.
const everybody = 1 << 30

// attach makes a handle of the vault under a key, of which it keeps a copy. It reads
// nothing.
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

// Source returns where the key came from.
func (v *Vault) Source() Source { return v.source }

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

// update is Update; the caller holds the gate and the write lock.
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
		v.cfg.log().Warn("the write-ahead log could not be folded into the database", "error", err)
	}
	return nil
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
	wait := anchorShortWait
	v.mu.Lock()
	if v.anchorProgress.changedHere {
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
