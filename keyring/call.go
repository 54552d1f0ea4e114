package keyring

import (
	"context"
	"errors"
	"fmt"
)

// call waits for a turn and then for f, both within the deadline. If f passes the deadline, f
// is abandoned and k is finished. The turn is given back when f returns, however late that is.
func (k *Keyring) call(ctx context.Context, f func(context.Context) (string, error)) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()

	select {
	case <-k.finished:
	case <-limited.Done():
		// Other calls used up the time. If the keyring is silent, they will report it.
		return "", k.overdue(ctx)
	case k.turn <- struct{}{}:
	}
	select {
	case <-k.finished:
		return "", fmt.Errorf("%w: an earlier call passed the deadline", ErrTimeout)
	default:
	}

	value, err := await(limited, func(ctx context.Context) (string, error) {
		defer func() { <-k.turn }()
		return f(ctx)
	})
	if errors.Is(err, errLate) {
		if ctx.Err() == nil {
			k.finishedOnce.Do(func() { close(k.finished) })
		}
		err = k.overdue(ctx)
	}
	return value, err
}

// overdue returns why a call was abandoned: because ctx ended, or else because of the deadline.
// If a deadline of ctx passed, it is both.
func (k *Keyring) overdue(ctx context.Context) error {
	switch err := ctx.Err(); {
	case err == nil:
		return fmt.Errorf("%w (%v)", ErrTimeout, k.timeout)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	default:
		return err
	}
}

// errLate is the error of await if ctx ended first.
var errLate = errors.New("no answer yet")

// await runs f in a goroutine. It returns what f returns, or errLate when ctx ends.
func await(ctx context.Context, f func(context.Context) (string, error)) (string, error) {
	type answer struct {
		value string
		err   error
	}
	answers := make(chan answer, 1) // buffered, so that a late f does not block
	go func() {
		value, err := f(ctx)
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil && ctx.Err() != nil {
			// f may return an error only because it noticed that ctx ended.
			return "", errLate
		}
		return a.value, a.err
	case <-ctx.Done():
		return "", errLate
	}
}

// ask runs one operation of the keyring library between two probes of the keyring. The first
// probe keeps the library from being called when it would run programs, hang or prompt; the
// operation may use its connection. The second probe finds the cause of an error to which the
// library gives no type.
func (k *Keyring) ask(ctx context.Context, operation func(*secretService) error) error {
	if err := ctx.Err(); err != nil {
		return err // an abandoned call ends here
	}
	s, err := probe(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	interactive := k.interactive && mayPrompt(ctx)
	if s.locked && !interactive {
		return ErrLocked
	}

	err = operation(s)
	var untyped untypedError
	if !errors.As(err, &untyped) {
		return err
	}
	after, err := probe(ctx)
	if err != nil {
		return err
	}
	defer after.close()
	switch {
	case after.locked && interactive:
		return ErrDismissed
	case after.locked:
		return ErrLocked
	default:
		return fmt.Errorf("%w: %s", ErrUnavailable, untyped)
	}
}
