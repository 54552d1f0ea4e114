package agent

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"
)

// The parameters of argon2id: RFC 9106's for little memory. A guess costs about a tenth
// of a second.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 1
)

const (
	firstWait = 100 * time.Millisecond // before the attempt that follows a wrong one
	maxWait   = 30 * time.Second
)

var (
	errLocked     = errors.New("the agent is locked")
	errNotLocked  = errors.New("the agent is not locked")
	errPassphrase = errors.New("wrong passphrase")
)

// secret is a passphrase as the agent keeps it.
type secret struct {
	salt [16]byte
	hash []byte
}

func newSecret(passphrase []byte) (*secret, error) {
	if len(passphrase) == 0 {
		return nil, errors.New("an empty passphrase")
	}
	s := &secret{}
	rand.Read(s.salt[:]) // never fails
	s.hash = s.derive(passphrase)
	return s, nil
}

func (s *secret) derive(passphrase []byte) []byte {
	return argon2.IDKey(passphrase, s.salt[:], argonTime, argonMemory, argonThreads, 32)
}

func (s *secret) matches(passphrase []byte) bool {
	return subtle.ConstantTimeCompare(s.derive(passphrase), s.hash) == 1
}

// lock is whether the agent is locked. It locks itself when nothing was signed for a
// while.
type lock struct {
	now   func() time.Time
	idle  time.Duration // 0: it does not lock itself
	own   *secret       // unlocks what locked itself
	sleep func(context.Context, time.Duration) error

	attempt chan struct{} // held by whoever hashes a passphrase: one at a time, also for the memory

	mu    sync.Mutex // guards what follows
	by    *secret    // that it is locked by; nil: it is not locked
	last  time.Time  // when it was used or unlocked
	wrong int        // attempts since the last right one
}

// open returns nil, or errLocked.
func (l *lock) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	if l.by != nil {
		return errLocked
	}
	return nil
}

// settle locks what was idle for long enough. The caller holds mu.
func (l *lock) settle() {
	if l.by == nil && l.idle > 0 && l.now().Sub(l.last) >= l.idle {
		l.by = l.own
	}
}

// used notes that something was signed, or returns errLocked: then it may not leave.
func (l *lock) used() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by != nil {
		return errLocked
	}
	l.last = l.now()
	return nil
}

// close locks the agent until it is unlocked with the passphrase.
func (l *lock) close(ctx context.Context, passphrase []byte) error {
	done, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := l.open(); err != nil {
		return err
	}
	s, err := newSecret(passphrase)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by = s
	return nil
}

// unlock unlocks the agent with the right passphrase. After a wrong one the next attempt waits, whoever makes
// it, and twice as long after each further one.
func (l *lock) unlock(ctx context.Context, passphrase []byte) error {
	done, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	if l.open() == nil {
		return errNotLocked
	}
	l.mu.Lock()
	by, wrong := l.by, l.wrong
	l.mu.Unlock()
	if wrong > 0 {
		if err := l.sleep(ctx, backOff(wrong)); err != nil {
			return err
		}
	}
	ok := by.matches(passphrase)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ok {
		l.wrong++
		return errPassphrase
	}
	l.by, l.wrong, l.last = nil, 0, l.now()
	return nil
}

// begin waits until nobody else hashes a passphrase.
func (l *lock) begin(ctx context.Context) (done func(), err error) {
	select {
	case l.attempt <- struct{}{}:
		return func() { <-l.attempt }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// backOff is the wait after so many wrong attempts.
func backOff(wrong int) time.Duration {
	return min(maxWait, firstWait<<min(wrong-1, 20))
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
