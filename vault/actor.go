package vault

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"
)

// Actor is who makes a change, for the audit log.
type Actor struct {
	Name string // who: "ops(1000)@desk"
	Via  string // by which program: "queen-rbee 0.3.0"
}

type actorKey struct{}

// WithActor names the one on whose behalf calls with the returned context act.
// An empty field leaves the vault's own value.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// actor gives the context's actor, completed from the configuration.
func (c Config) actor(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	if a.Name == "" {
		a.Name = c.Actor
	}
	if a.Name == "" {
		a.Name = osActor()
	}
	if a.Via == "" {
		a.Via = c.via()
	}
	a.Name, a.Via = auditText(a.Name, 256), auditText(a.Via, 256)
	return a
}

// osActor is the process's user, number and host: name(uid)@host.
func osActor() string {
	name, host := "?", "?"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return fmt.Sprintf("%s(%d)@%s", name, os.Getuid(), host)
}

// auditText caps a text and takes control characters out of it, so that no row
// can forge another on a terminal.
func auditText(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "")
	}
	return s
}
