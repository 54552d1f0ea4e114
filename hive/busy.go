package hive

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// retries is how often a busy server is asked again.
const retries = 4

// retryBusy calls try again, more and more slowly, while its error is [ErrBusy]. It returns
// the last error, or ctx's own if that ends in between.
func retryBusy(ctx context.Context, try func() error) error {
	wait := 250 * time.Millisecond
	for again := 0; ; again++ {
		err := try()
		if again == retries || !errors.Is(err, ErrBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)): // so that not all come back at once
		}
		wait *= 2
	}
}
