// Package trace tells a logger what an operation does, step by step, and how long each step
// takes. The logger travels in the context, so that a step deep below needs no other way.
//
// A step names what is done, never what with: no secret, no value of a statement.
package trace

import (
	"context"
	"log/slog"
	"time"
)

type loggerKey struct{}

// With returns a context whose steps the logger gets, at the level of debugging.
func With(ctx context.Context, l *slog.Logger) context.Context {
	return context.WithValue(ctx, loggerKey{}, l)
}

// On reports whether a logger wants the steps of a context.
func On(ctx context.Context) bool {
	l, _ := ctx.Value(loggerKey{}).(*slog.Logger)
	return l != nil && l.Enabled(ctx, slog.LevelDebug)
}

// Step begins a step. The function that it returns ends the step, and logs it with attributes
// as [slog.Logger.Debug] takes them and with the time that it took. Without a logger that wants
// it, nothing happens.
func Step(ctx context.Context, what string, attrs ...any) (end func()) {
	if !On(ctx) {
		return func() {}
	}
	begun := time.Now()
	return func() {
		l, _ := ctx.Value(loggerKey{}).(*slog.Logger)
		l.DebugContext(ctx, what, append(attrs, "took", time.Since(begun).Round(time.Microsecond))...)
	}
}
