package vault

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Actor says who makes a change, for the audit log.
type Actor struct {
	Name string // the person: "ops(1000)@desk"; after it, whose slot opened the vault
	Via  string // the program: "queen-rbee 0.3.0"
}

// openedBy names the person that a slot belongs to, for the audit log. It is "" where the slot
// belongs to nobody.
func (s Slot) openedBy() string {
	if s.Person == "" {
		return ""
	}
	return fmt.Sprintf("%s (by slot %.4s)", s.Person, s.ID)
}

type actorKey struct{}

// WithActor sets the actor for calls with the returned context. An empty field keeps the
// vault's own value.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// actor returns the context's actor. It fills empty fields from the configuration.
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
	if c.opener != "" {
		a.Name += ", " + c.opener
	}
	a.Name, a.Via = auditText(a.Name, maxActor), auditText(a.Via, maxActor)
	return a
}

// osActor returns the process's user, user number and host: name(uid)@host.
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

// cutMark is the end of a text of the audit log that was cut.
const cutMark = "… (cut)"

// auditText cuts a text that is too long, and replaces its control characters. So no row can
// show a false row on a terminal. A cut text ends with cutMark.
func auditText(s string, max int) string {
	s = wire.Clean(s)
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max-len(cutMark)], "") + cutMark
	}
	return s
}

// The longest texts of an audit row, in bytes.
const (
	maxActor   = 256
	maxAction  = 64
	maxSubject = 1024
	maxDetail  = 8192
)
