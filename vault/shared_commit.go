package vault

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// Callers of Update that wait for one another share a commit (group commit), because its flush
// takes longer than most changes. Each caller waits for the baton, and runs its own function on
// its own goroutine, in the transaction of the commit that is open. Then it passes the baton to
// the caller that has waited longest, and waits for the commit. If nobody waits for the baton, it
// commits for all.

// A commit is closed to others when so many functions have run in it, or so long after it was
// opened: those who are in it wait for it, and other processes wait for the write lock.
const (
	maxShared    = 64
	maxShareTime = 10 * time.Millisecond
)

// sharedCommit is one commit. Only the caller that has the baton uses it, but for done and err.
type sharedCommit struct {
	batch   *sqlcipher.Batch
	calls   int       // of functions, of those that failed too
	changes int       // how many are in it
	limit   time.Time // when nobody else may join any more
	audited urgency
	done    chan struct{} // closed when the commit is over
	err     error         // its result, valid after done
}

// full reports whether nobody else may join.
func (c *sharedCommit) full() bool {
	return c.batch.Lost() || c.calls >= maxShared || !time.Now().Before(c.limit)
}

// baton is held by one caller of Update at a time.
type baton struct {
	mu    sync.Mutex // guards what follows
	taken bool
	queue []chan struct{} // of those who wait, in order; each is closed when it gets the baton
}

// take waits for the baton until ctx ends.
func (b *baton) take(ctx context.Context) error {
	b.mu.Lock()
	if !b.taken {
		b.taken = true
		b.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	b.queue = append(b.queue, mine)
	b.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, mine)
	if i < 0 { // it has just come, and must be passed on
		return nil
	}
	b.queue = slices.Delete(b.queue, i, i+1)
	return ctx.Err()
}

// pass passes the baton to the caller that has waited longest, and reports whether there is one.
// If not, it stays taken.
func (b *baton) pass() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.passLocked()
}

// passLocked is pass; the caller holds b.mu.
func (b *baton) passLocked() bool {
	if len(b.queue) == 0 {
		return false
	}
	close(b.queue[0])
	b.queue = b.queue[1:]
	return true
}

// release passes the baton, or frees it if nobody waits.
func (b *baton) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = b.passLocked()
}

// updateShared is Update. The caller holds the gate and does not hold the write lock.
func (v *Vault) updateShared(ctx context.Context, fn func(tx *Tx) error) error {
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	if err := v.baton.take(wait); err != nil {
		return lockError(ctx, v.write, durable.ErrLocked)
	}
	c, err := v.join(ctx, wait, fn)
	if err != nil {
		return err
	}
	// From here on the change is in the commit, even if ctx ends.
	<-c.done
	return c.err
}

// join runs fn in the transaction of the open commit and returns that commit. Without one, it
// takes the write lock within wait and opens one. The caller has the baton; join passes it on,
// also if fn panics.
func (v *Vault) join(ctx, wait context.Context, fn func(tx *Tx) error) (*sharedCommit, error) {
	defer v.passOn(ctx)
	if v.openCommit == nil {
		if err := v.write.Exclusive(wait); err != nil {
			return nil, lockError(ctx, v.write, err)
		}
		v.openCommit = &sharedCommit{batch: v.db.NewBatch(), limit: time.Now().Add(v.cfg.shareTime()), done: make(chan struct{})}
	}
	c := v.openCommit
	c.calls++
	audited, err := v.store.run(ctx, c.batch, fn)
	if err != nil {
		return nil, err
	}
	c.changes++
	c.audited = max(c.audited, audited)
	return c, nil
}

// passOn passes the baton on. If nobody waits for it, or nobody else may join the open commit,
// it commits first and releases the write lock.
func (v *Vault) passOn(ctx context.Context) {
	c := v.openCommit
	if c != nil && !c.full() && v.baton.pass() {
		return
	}
	if c != nil {
		v.openCommit = nil
		if c.err = c.batch.Commit(); c.err == nil && c.changes > 0 {
			v.committed(ctx, c.audited)
		}
		v.write.Unlock()
		close(c.done)
	}
	v.baton.release()
}
