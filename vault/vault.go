package vault

import (
	"context"
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

	baton      baton
	openCommit *sharedCommit // that others may join, or nil; only the caller that has the baton uses it

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

// update is Update. The caller holds the gate and the write lock. It does not write the anchor,
// which is written after the write lock is released: see followAnchor.
func (v *Vault) update(ctx context.Context, fn func(tx *Tx) error) error {
	audited, err := v.store.update(ctx, fn)
	if err != nil {
		return err
	}
	v.committed(ctx, audited)
	return nil
}

// committed does what follows a commit under the write lock.
func (v *Vault) committed(ctx context.Context, audited urgency) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	v.mu.Lock()
	v.anchorProgress.mark(audited)
	v.mu.Unlock()
	large, err := v.db.CheckpointIfLarge(ctx)
	if large && err == nil {
		v.mu.Lock()
		v.anchorProgress.markCheckpoint()
		v.mu.Unlock()
	}
	if err != nil {
		v.cfg.log().Warn("the write-ahead log could not be checkpointed", "error", err)
	}
}

// lastTry is how long to try for the exclusive lock without really waiting: for a first
// attempt, or after the time to wait is over.
const lastTry = 50 * time.Millisecond
