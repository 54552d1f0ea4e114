package durable

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gofrs/flock"
)

// ErrLocked: another holder kept the lock until the context ended.
var ErrLocked = errors.New("lock is held by another")

// retryDelay is how often a waiter asks again: flock(2) cannot be given a
// deadline, so a waiter polls.
const retryDelay = time.Millisecond

// Lock is an advisory lock between processes, flock(2) on a file that has no
// content and is never unlinked: an unlinked lock file would let two holders
// in. The operating system releases it when a process dies.
//
// A Lock may be used by several goroutines; it admits one at a time, because
// flock grants a second lock on one handle without complaint.
type Lock struct {
	mu chan struct{} // holds one token while locked
	fl *flock.Flock
}

// NewLock returns an unlocked Lock on the file at path, which is created with
// mode 0600 when it is first taken.
func NewLock(path string) *Lock {
	return &Lock{
		mu: make(chan struct{}, 1),
		fl: flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600)),
	}
}

// Path returns the lock file's path.
func (l *Lock) Path() string { return l.fl.Path() }

// Exclusive waits for the lock, with nobody beside, until ctx ends. A deadline
// gives [ErrLocked], a cancellation the context's error.
func (l *Lock) Exclusive(ctx context.Context) error {
	return l.take(ctx, l.fl.TryLockContext)
}

// Shared waits for the lock, with other sharers allowed beside, until ctx
// ends. Errors as for [Lock.Exclusive].
func (l *Lock) Shared(ctx context.Context) error {
	return l.take(ctx, l.fl.TryRLockContext)
}

// TryExclusive takes the lock if nobody holds it, without waiting.
func (l *Lock) TryExclusive() (bool, error) {
	select {
	case l.mu <- struct{}{}:
	default:
		return false, nil
	}
	ok, err := l.fl.TryLock()
	if !ok || err != nil {
		l.fl.Close()
		<-l.mu
		return false, err
	}
	return true, nil
}

func (l *Lock) take(ctx context.Context, try func(context.Context, time.Duration) (bool, error)) error {
	select {
	case l.mu <- struct{}{}:
	case <-ctx.Done():
		return lockError(ctx.Err())
	}
	if _, err := try(ctx, retryDelay); err != nil {
		l.fl.Close()
		<-l.mu
		return lockError(err)
	}
	return nil
}

func lockError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return ErrLocked
	}
	return err
}

// Unlock releases the lock. It must be held.
func (l *Lock) Unlock() error {
	err := l.fl.Unlock()
	<-l.mu
	if err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}
