package hive

import (
	"context"
	"errors"
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
	var conn *Conn
	var begun time.Time
	err := retryBusy(ctx, func() (err error) {
		begun = time.Now()
		conn, err = d.Dial(ctx, name)
		return err
	})
	outcome, ok := OutcomeOf(err)
	if !ok {
		return nil, Result{}, err
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
