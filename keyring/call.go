package keyring

import (
	"context"
	"errors"
	"fmt"
)

// call waits for a turn and then for f, both within the deadline. If f passes the deadline
// it is left behind and k is finished. The turn is given back when f returns, however late.
func (k *Keyring) call(ctx context.Context, f func(context.Context) (string, error)) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()

	select {
	case <-k.finished:
	case <-limited.Done():
		// Others used up the time: whether the keyring is silent is theirs to say.
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

// overdue says why a call was not waited for any longer: because of ctx, or else of the
// deadline. A deadline of ctx is both.
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

// errLate is await's word for a ctx that ended first.
var errLate = errors.New("no answer yet")

// await runs f in a goroutine and returns what it returns, or errLate once ctx has ended.
func await(ctx context.Context, f func(context.Context) (string, error)) (string, error) {
	type answer struct {
		value string
		err   error
	}
	answers := make(chan answer, 1) // so that a late f does not wait for a reader
	go func() {
		value, err := f(ctx)
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil && ctx.Err() != nil {
			// Some of f's errors are only its own way to notice that ctx ended.
			return "", errLate
		}
		return a.value, a.err
	case <-ctx.Done():
		return "", errLate
	}
}

// ask runs one operation of the keyring library between two looks at the keyring. The
// first keeps the library from being called where it would run programs, hang or prompt;
// the second finds the cause of an error to which the library gives no type.
func (k *Keyring) ask(ctx context.Context, operation func() error) error {
	if err := ctx.Err(); err != nil {
		return err // a call left behind ends here
	}
	locked, err := probe(ctx)
	if err != nil {
		return err
	}
	interactive := k.interactive && mayPrompt(ctx)
	if locked && !interactive {
		return ErrLocked
	}

	err = operation()
	var untyped untypedError
	if !errors.As(err, &untyped) {
		return err
	}
	locked, err = probe(ctx)
	switch {
	case err != nil:
		return err
	case locked && interactive:
		return ErrDismissed
	case locked:
		return ErrLocked
	default:
		return fmt.Errorf("%w: %s", ErrUnavailable, untyped)
	}
}
