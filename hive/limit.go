package hive

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// dialsPerAddress is well under the 10 unauthenticated connections from which on
	// OpenSSH begins to drop some.
	dialsPerAddress = 4
	dialsAtOnce     = 64
)

// limiter bounds the logins that are under way. The zero value is ready.
type limiter struct {
	once sync.Once
	all  *semaphore.Weighted

	mu        sync.Mutex // guards what follows
	addresses map[string]*addressLimit
}

// addressLimit is there as long as somebody uses it.
type addressLimit struct {
	users int
	slots *semaphore.Weighted
}

// take waits for a place among the logins to an address. The caller calls done.
func (l *limiter) take(ctx context.Context, address string) (done func(), err error) {
	l.once.Do(func() {
		l.all = semaphore.NewWeighted(dialsAtOnce)
		l.addresses = map[string]*addressLimit{}
	})
	l.mu.Lock()
	a := l.addresses[address]
	if a == nil {
		a = &addressLimit{slots: semaphore.NewWeighted(dialsPerAddress)}
		l.addresses[address] = a
	}
	a.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if a.users--; a.users == 0 {
			delete(l.addresses, address)
		}
	}
	// The address first: who waits for a slow one holds up nobody else.
	if err := a.slots.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	if err := l.all.Acquire(ctx, 1); err != nil {
		a.slots.Release(1)
		leave()
		return nil, err
	}
	return func() {
		l.all.Release(1)
		a.slots.Release(1)
		leave()
	}, nil
}
