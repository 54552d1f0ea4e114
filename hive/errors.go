package hive

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// The errors of this package, to be compared with [errors.Is]. Those of package registry
// come through as well.
var (
	// ErrUnreachable: there is no such host, or no way to it.
	ErrUnreachable = errors.New("unreachable")
	// ErrRefused: nothing listens on the port.
	ErrRefused = errors.New("connection refused")
	// ErrTimeout: the deadline passed before the login was done.
	ErrTimeout = errors.New("timed out")
	// ErrHostKeyUnknown: no host key is pinned for the node, or the server has none of a
	// pinned type. A *[HostKeyError] in the chain has the key that it presented.
	ErrHostKeyUnknown = errors.New("host key unknown")
	// ErrHostKeyChanged: the server presented another key than those that are pinned. A
	// *[HostKeyError] in the chain has it.
	ErrHostKeyChanged = errors.New("host key changed")
	// ErrNoKey: the node has no SSH key that can be used here.
	ErrNoKey = errors.New("no SSH key")
	// ErrPermission: the server does not let the user in with the key.
	ErrPermission = errors.New("permission denied")
	// ErrBusy: the server closed the connection before it said who it is, as one does
	// that has too many logins under way.
	ErrBusy = errors.New("server is busy")
	// ErrProtocol: what answers does not speak SSH as we do.
	ErrProtocol = errors.New("protocol error")
	// ErrJumpLoop: the jumps of a node lead back to one of them, or are too many.
	ErrJumpLoop = errors.New("jumps in a circle")
)

// Error says at which node of the way to another one a connection failed.
type Error struct {
	Node string // the node itself, or one that it is reached through
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("connect to %q: %v", e.Node, e.Err) }

// Unwrap returns what failed.
func (e *Error) Unwrap() error { return e.Err }

// HostKeyError is a host key that is not pinned. It is [ErrHostKeyUnknown] or
// [ErrHostKeyChanged].
type HostKeyError struct {
	Key    ssh.PublicKey // that the server presented and proved to have
	Pinned []string      // fingerprints of the pinned keys
}

func (e *HostKeyError) Error() string {
	text := fmt.Sprintf("%v: it presents %s %s", e.sentinel(), e.Key.Type(), ssh.FingerprintSHA256(e.Key))
	if len(e.Pinned) > 0 {
		text += ", pinned is " + strings.Join(e.Pinned, ", ")
	}
	return text
}

func (e *HostKeyError) sentinel() error {
	if len(e.Pinned) == 0 {
		return ErrHostKeyUnknown
	}
	return ErrHostKeyChanged
}

// Is reports whether target is the sentinel that the error stands for.
func (e *HostKeyError) Is(target error) bool { return target == e.sentinel() }

// Outcome is how a node answered.
type Outcome string

// The outcomes of a probe.
const (
	Online          Outcome = "online"
	Unreachable     Outcome = "unreachable"
	Refused         Outcome = "refused"
	TimedOut        Outcome = "timed out"
	HostKeyUnknown  Outcome = "host key unknown"
	HostKeyChanged  Outcome = "host key changed"
	NoKey           Outcome = "no SSH key"
	PermissionDeny  Outcome = "permission denied"
	Busy            Outcome = "busy"
	ProtocolFailure Outcome = "protocol error"
	JumpLoop        Outcome = "jump loop"
)

// outcomes are the sentinels and what they mean for a probe.
var outcomes = []struct {
	err     error
	outcome Outcome
}{
	{ErrUnreachable, Unreachable},
	{ErrRefused, Refused},
	{ErrTimeout, TimedOut},
	{ErrHostKeyUnknown, HostKeyUnknown},
	{ErrHostKeyChanged, HostKeyChanged},
	{ErrNoKey, NoKey},
	{ErrPermission, PermissionDeny},
	{ErrBusy, Busy},
	{ErrProtocol, ProtocolFailure},
	{ErrJumpLoop, JumpLoop},
}

// OutcomeOf returns the outcome that an error of Dial stands for; ok is false for one that
// says nothing of the node, such as a context that ended.
func OutcomeOf(err error) (o Outcome, ok bool) {
	if err == nil {
		return Online, true
	}
	if errors.Is(err, context.Canceled) {
		return "", false
	}
	for _, row := range outcomes {
		if errors.Is(err, row.err) {
			return row.outcome, true
		}
	}
	return "", false
}

// Status returns the status of a node that answered so, or "" where its status stays what
// it was: a busy server is neither online nor offline.
func (o Outcome) Status() registry.Status {
	switch o {
	case Online:
		return registry.StatusOnline
	case Unreachable, Refused, TimedOut:
		return registry.StatusOffline
	case Busy:
		return ""
	}
	return registry.StatusError
}
