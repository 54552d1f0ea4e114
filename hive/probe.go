package hive

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"golang.org/x/crypto/ssh"
)

// Result is what a probe of a node showed.
type Result struct {
	Node    string
	Outcome Outcome
	// Err is why the node is not online; nil: it is.
	Err error
	// Key is the host key that is unknown or changed, else nil.
	Key ssh.PublicKey
	// At is the node that Err is of: Node, or one that it is reached through.
	At string
	// Took is how long the login took.
	Took time.Duration
}

// retries is how often a busy server is asked again.
const retries = 4

// Probe logs in to the node and out again. It asks a busy server again, more and more
// slowly. The error is for what says nothing of the node: [registry.ErrNotFound], an error
// of the vault, or ctx's own.
func (d *Dialer) Probe(ctx context.Context, name string) (Result, error) {
	conn, result, err := d.DialProbe(ctx, name)
	if conn != nil {
		conn.Close()
	}
	return result, err
}

// DialProbe is Probe, and keeps the connection where the node is online; else it is nil.
func (d *Dialer) DialProbe(ctx context.Context, name string) (*Conn, Result, error) {
	wait := 250 * time.Millisecond
	for try := 0; ; try++ {
		begun := time.Now()
		conn, err := d.Dial(ctx, name)
		outcome, ok := OutcomeOf(err)
		if !ok {
			return nil, Result{}, err
		}
		if outcome == Busy && try < retries {
			select {
			case <-ctx.Done():
				return nil, Result{}, ctx.Err()
			case <-time.After(wait/2 + rand.N(wait)): // so that not all come back at once
			}
			wait *= 2
			continue
		}
		r := Result{Node: name, Outcome: outcome, Err: err, At: name, Took: time.Since(begun)}
		if at, ok := errors.AsType[*Error](err); ok {
			r.At = at.Node
		}
		if bad, ok := errors.AsType[*HostKeyError](err); ok {
			r.Key = bad.Key
		}
		return conn, r, nil
	}
}
