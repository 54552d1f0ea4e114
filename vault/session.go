package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// Session is a vault that a process keeps open for long, such as an agent. It gives way to a
// process that needs the vault for itself: a rotation, a restore, a migration. That process
// holds the turn, a lock on a file beside the database. A session looks at it once a second; while
// it is held, the session lets its users finish, closes the vault, waits for the turn, and opens
// the vault again.
//
// A Session is safe for concurrent use. Close it once.
type Session struct {
	open func(context.Context) (*Vault, error)
	turn *durable.Lock
	stop context.CancelFunc
	done chan struct{} // closed when the watching has ended
	gate *semaphore.Weighted

	mu    sync.Mutex // guards what follows; changed by who has the whole gate or is inside
	vault *Vault     // nil: to be opened again
}

// turnInterval is the time between two looks at the turn.
const turnInterval = time.Second

// NewSession opens a vault by the function, which is called again after each pause. It should not
// ask a person then: see [keyring.WithoutPrompt]. Errors are those of open.
func NewSession(ctx context.Context, open func(context.Context) (*Vault, error)) (*Session, error) {
	v, err := open(ctx)
	if err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Session{
		open:  open,
		turn:  durable.NewLock(v.paths.turn),
		stop:  stop,
		done:  make(chan struct{}),
		gate:  semaphore.NewWeighted(everybody),
		vault: v,
	}
	go s.watch(watching)
	return s, nil
}

// Use runs fn with the vault. It waits while another process has the turn, and fn keeps the
// session from giving way, so it should be short. The vault is another one after a pause. The
// error is fn's, ctx's, [ErrClosed], or that of opening the vault again.
func (s *Session) Use(ctx context.Context, fn func(*Vault) error) error {
	if err := s.gate.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.gate.Release(1)
	v, err := s.opened(ctx)
	if err != nil {
		return err
	}
	return fn(v)
}

// opened returns the vault, which it opens again where a pause could not. The caller is inside
// the gate.
func (s *Session) opened(ctx context.Context) (*Vault, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done:
		return nil, ErrClosed
	default:
	}
	if s.vault == nil {
		v, err := s.open(ctx)
		if err != nil {
			return nil, fmt.Errorf("open the vault again: %w", err)
		}
		s.vault = v
	}
	return s.vault, nil
}

// watch gives way until ctx ends.
func (s *Session) watch(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(turnInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if free, err := s.turn.TryExclusive(); err != nil {
			continue
		} else if free {
			s.turn.Unlock()
			continue
		}
		s.giveWay(ctx)
	}
}

// giveWay closes the vault until the turn is free.
func (s *Session) giveWay(ctx context.Context) {
	if s.gate.Acquire(ctx, everybody) != nil {
		return
	}
	defer s.gate.Release(everybody)
	s.closeVault()
	if s.turn.Shared(ctx) != nil {
		return
	}
	s.turn.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, err := s.open(ctx); err == nil { // else the next user gets the error
		s.vault = v
	}
}

func (s *Session) closeVault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vault
	s.vault = nil
	if v == nil {
		return nil
	}
	return v.Close()
}

// Close waits for the users and closes the vault. A second Close is [ErrClosed].
func (s *Session) Close() error {
	s.stop()
	<-s.done
	if err := s.gate.Acquire(context.Background(), everybody); err != nil {
		return err
	}
	// The gate stays closed for good: who waits for it gets ErrClosed.
	defer s.gate.Release(everybody)
	err := s.closeVault()
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}
