package main

import (
	"context"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// sessionDialer connects to the nodes of a session's registry. It holds the vault during a
// login only, so a rotation does not wait for what is done on the node.
type sessionDialer struct {
	session *registry.Session
	timeout time.Duration // for one login

	mu     sync.Mutex   // guards dialer
	dialer *hive.Dialer // of the vault that is open
}

// DialProbe is that of [hive.Dialer].
func (d *sessionDialer) DialProbe(ctx context.Context, name string) (conn *hive.Conn, result hive.Result, err error) {
	err = d.session.Use(ctx, func(r *registry.Registry) (err error) {
		conn, result, err = d.of(r).DialProbe(ctx, name)
		return err
	})
	return conn, result, err
}

func (d *sessionDialer) of(r *registry.Registry) *hive.Dialer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dialer == nil || d.dialer.Registry != r {
		d.dialer = &hive.Dialer{Registry: r, Timeout: d.timeout}
	}
	return d.dialer
}
