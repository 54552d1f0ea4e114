package durable

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gofrs/flock"

	"github.com/rbee-keeper/rbee-vault/internal/trace"
)

// ErrLocked: another holder had the lock until the deadline of the context.
var ErrLocked = errors.New("lock is held by another")

// retryDelay is the time between two attempts. flock(2) has no deadline, so a waiter must poll.
const retryDelay = time.Millisecond

// Lock is an advisory lock between processes: flock(2) on a file. The file has no content and
// is never unlinked, because after an unlink two holders could lock two files of the same name.
// The operating system releases the lock when a process dies.
//
// Several goroutines may use a Lock. It admits one at a time, because flock grants a second
// lock on the same handle.
type Lock struct {
	mu chan struct{} // holds one token while locked
	fl *flock.Flock
}

// NewLock returns an unlocked Lock on the file at path. The file is created with mode 0600 when
// the lock is first taken.
func NewLock(path string) *Lock {
	return &Lock{
		mu: make(chan struct{}, 1),
		fl: flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600)),
	}
}

// Path returns the lock file's path.
func (l *Lock) Path() string { return l.fl.Path() }

// Exclusive waits for the lock until ctx ends. Nobody else holds it then. After a deadline the
// error is [ErrLocked], after a cancellation that of the context.
func (l *Lock) Exclusive(ctx context.Context) error {
	return l.take(ctx, l.fl.TryLockContext)
}

// Shared waits for the lock until ctx ends. Others may hold it shared too. Errors are those of
// [Lock.Exclusive].
func (l *Lock) Shared(ctx context.Context) error {
	return l.take(ctx, l.fl.TryRLockContext)
}

// TryExclusive takes the lock if nobody holds it. It does not wait.
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
	defer trace.Step(ctx, "lock", "file", l.Path())()
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

// Unlock releases the lock, which must be held.
func (l *Lock) Unlock() error {
	err := l.fl.Unlock()
	<-l.mu
	if err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}
