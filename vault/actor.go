package vault

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
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
	a.Name, a.Via = auditText(a.Name, maxActor), auditText(a.Via, maxActor)
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

// cutMark ends a text of the audit log that was too long.
const cutMark = "… (cut)"

// auditText caps a text and takes control characters out of it, so that no row
// can forge another on a terminal. A text that is cut says so.
func auditText(s string, max int) string {
	s = wire.Clean(s)
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max-len(cutMark)], "") + cutMark
	}
	return s
}

// checkText refuses a row that no vault has written: it would write more than itself
// on a terminal, and a later one could not store it.
func (r AuditRow) checkText() error {
	if r.Actor != auditText(r.Actor, maxActor) || r.Via != auditText(r.Via, maxActor) || r.Action != auditText(r.Action, maxAction) ||
		r.Subject != auditText(r.Subject, maxSubject) || r.Detail != auditText(r.Detail, maxDetail) {
		return fmt.Errorf("%w: a text of audit row %d is too long or has control characters", ErrInvalid, r.Seq)
	}
	return nil
}

// Caps of an audit row's texts, in bytes.
const (
	maxActor   = 256
	maxAction  = 64
	maxSubject = 1024
	maxDetail  = 8192
)
