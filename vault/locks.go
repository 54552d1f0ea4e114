package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// takeAlone takes the exclusive lock, with the turn: the sessions of other processes give way.
// Each has the configured wait.
func takeAlone(ctx context.Context, cfg Config, p paths) (release func(), err error) {
	turn, lock := durable.NewLock(p.turn), durable.NewLock(p.lock)
	if err := take(ctx, cfg, turn, turn.Exclusive); err != nil {
		return nil, err
	}
	if err := take(ctx, cfg, lock, lock.Exclusive); err != nil {
		turn.Unlock()
		return nil, err
	}
	return func() {
		lock.Unlock()
		turn.Unlock()
	}, nil
}

// take takes the lock within the configured wait, or returns an error that names its holders.
func take(ctx context.Context, cfg Config, l *durable.Lock, how func(context.Context) error) error {
	wait, cancel := context.WithTimeout(ctx, cfg.wait())
	defer cancel()
	if err := how(wait); err != nil {
		return lockError(ctx, l, err)
	}
	return nil
}

// lockError returns an error that names the holders of a lock that was not available.
func lockError(ctx context.Context, l *durable.Lock, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("take lock %q: %w", l.Path(), err)
	}
	holders := durable.Holders(l.Path())
	if len(holders) == 0 {
		return fmt.Errorf("%w: gave up waiting for the lock %q", ErrLocked, l.Path())
	}
	var names []string
	for _, h := range holders {
		names = append(names, h.String())
	}
	return fmt.Errorf("%w by %s", ErrLocked, strings.Join(names, ", "))
}
