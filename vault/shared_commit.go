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
// takes longer than most changes. Each caller waits for its turn, and runs its own function on
// its own goroutine, in the transaction of the commit that is open. Then it passes the turn to
// the caller that has waited longest, and waits for the commit. If nobody waits for the turn, it
// commits for all.

// A commit is closed to others when it has so many changes, or so long after its first: those who
// are in it wait for it.
const (
	maxShared    = 64
	maxShareTime = 10 * time.Millisecond
)

// sharedCommit is one commit. Only the caller that has the turn uses it, but for done and err.
type sharedCommit struct {
	batch   *sqlcipher.Batch
	changes int       // how many are in it
	limit   time.Time // when nobody else may join any more, valid after the first change
	audited urgency
	done    chan struct{} // closed when the commit is over
	err     error         // its result, valid after done
}

// full reports whether nobody else may join.
func (c *sharedCommit) full() bool {
	return c.batch.Lost() || c.changes >= maxShared || c.changes > 0 && !time.Now().Before(c.limit)
}

// turns is the queue of the callers of Update.
type turns struct {
	mu    sync.Mutex // guards what follows
	taken bool
	queue []chan struct{} // of those who wait, in order; each is closed when its turn comes
}

// take waits for the turn until ctx ends.
func (t *turns) take(ctx context.Context) error {
	t.mu.Lock()
	if !t.taken {
		t.taken = true
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	t.queue = append(t.queue, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.queue, mine)
	if i < 0 { // the turn has just come, and must be passed on
		return nil
	}
	t.queue = slices.Delete(t.queue, i, i+1)
	return ctx.Err()
}

// pass passes the turn to the caller that has waited longest, and reports whether there is one.
// If not, the turn stays taken.
func (t *turns) pass() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.passLocked()
}

// passLocked is pass; the caller holds t.mu.
func (t *turns) passLocked() bool {
	if len(t.queue) == 0 {
		return false
	}
	close(t.queue[0])
	t.queue = t.queue[1:]
	return true
}

// release passes the turn, or frees it if nobody waits.
func (t *turns) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = t.passLocked()
}

// updateShared is Update. The caller holds the gate and does not hold the write lock.
func (v *Vault) updateShared(ctx context.Context, fn func(tx *Tx) error) error {
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	if err := v.turns.take(wait); err != nil {
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
// takes the write lock within wait and opens one. The caller has the turn; join passes it on,
// also if fn panics.
func (v *Vault) join(ctx, wait context.Context, fn func(tx *Tx) error) (*sharedCommit, error) {
	defer v.endTurn(ctx)
	if v.open == nil {
		if err := v.write.Exclusive(wait); err != nil {
			return nil, lockError(ctx, v.write, err)
		}
		v.open = &sharedCommit{batch: v.db.NewBatch(), done: make(chan struct{})}
	}
	c := v.open
	audited, err := v.store.run(ctx, c.batch, fn)
	if err != nil {
		return nil, err
	}
	if c.changes++; c.changes == 1 {
		c.limit = time.Now().Add(v.cfg.shareTime())
	}
	c.audited = max(c.audited, audited)
	return c, nil
}

// endTurn passes the turn on. If nobody waits for it, or nobody else may join the open commit,
// it commits first and releases the write lock.
func (v *Vault) endTurn(ctx context.Context) {
	c := v.open
	if c != nil && !c.full() && v.turns.pass() {
		return
	}
	if c != nil {
		v.open = nil
		if c.err = c.batch.Commit(); c.err == nil && c.changes > 0 {
			v.committed(ctx, c.audited)
		}
		v.write.Unlock()
		close(c.done)
	}
	v.turns.release()
}
