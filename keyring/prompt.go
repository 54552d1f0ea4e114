package keyring

import "context"

type withoutPrompt struct{}

// WithoutPrompt returns a context whose calls never wait for a person. If the keyring is
// locked, they return [ErrLocked].
func WithoutPrompt(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutPrompt{}, true)
}

func mayPrompt(ctx context.Context) bool { return ctx.Value(withoutPrompt{}) == nil }
