package trace_test

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/trace"
)

func TestStep(t *testing.T) {
	var out bytes.Buffer
	logger := func(level slog.Level) *slog.Logger {
		return slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
	}
	trace.Step(t.Context(), "nobody listens")()
	trace.Step(trace.With(t.Context(), logger(slog.LevelInfo)), "nobody wants it")()
	if out.Len() > 0 {
		t.Error(out.String())
	}
	trace.Step(trace.With(t.Context(), logger(slog.LevelDebug)), "lock", "path", "x")()
	if !regexp.MustCompile(`level=DEBUG msg=lock path=x took=[0-9.]+[nµm]?s\n$`).MatchString(out.String()) {
		t.Error(out.String())
	}
}

func BenchmarkStepUnheard(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for b.Loop() {
		trace.Step(ctx, "query", "sql", "SELECT 1")()
	}
}
