package keyring

import "context"

type withoutPrompt struct{}

// WithoutPrompt has the calls with the returned context never wait for a person: a locked
// keyring is [ErrLocked].
func WithoutPrompt(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutPrompt{}, true)
}

func mayPrompt(ctx context.Context) bool { return ctx.Value(withoutPrompt{}) == nil }
