package hive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// handshake says how to log in.
type handshake struct {
	user       string
	auth       []ssh.AuthMethod
	algorithms []string // of host keys; nil: any but certificates
	check      func(ssh.PublicKey) error
}

// failedAtHostKey reports whether the sides have no host key algorithm in common.
func (h handshake) failedAtHostKey(e *ssh.AlgorithmNegotiationError) bool {
	return slices.Equal(e.SupportedAlgorithms, h.algorithms)
}

// shake dials, through via where it is not nil, and logs in, until ctx ends or the time
// for a login is over.
func (d *Dialer) shake(ctx context.Context, via *ssh.Client, addr string, h handshake) (*ssh.Client, error) {
	done, err := d.limits.take(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, d.timeout())
	defer cancel()
	raw, err := dial(ctx, via, addr)
	if err != nil {
		return nil, err
	}
	conn := &watchedConn{Conn: raw}
	// A connection through another one has no deadlines, so its end is its closing.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	var refused error // by check
	accepted := false
	config := &ssh.ClientConfig{
		User:              h.user,
		Auth:              h.auth,
		HostKeyAlgorithms: h.algorithms,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			refused = h.check(key)
			accepted = refused == nil
			return refused
		},
	}
	if config.HostKeyAlgorithms == nil {
		for _, t := range hostKeyTypes {
			config.HostKeyAlgorithms = append(config.HostKeyAlgorithms, algorithmsOf(t)...)
		}
	}
	c, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	switch {
	case err == nil && stop():
		return ssh.NewClient(c, channels, requests), nil
	case err == nil: // ctx ended just now
		c.Close()
		return nil, ctx.Err()
	case refused != nil:
		return nil, refused
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case accepted && !closedByPeer(err):
		return nil, fmt.Errorf("%w: it does not let user %q in with this key", ErrPermission, h.user)
	case !conn.identified() && closedByPeer(err):
		return nil, fmt.Errorf("%w: it closed the connection before it said who it is", ErrBusy)
	}
	return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
}

// dial makes a connection, whose errors it classifies.
func dial(ctx context.Context, via *ssh.Client, addr string) (net.Conn, error) {
	if via != nil {
		conn, err := via.DialContext(ctx, "tcp", addr)
		var refused *ssh.OpenChannelError
		switch {
		case err == nil || ctx.Err() != nil:
			return conn, errors.Join(err, ctx.Err())
		case errors.As(err, &refused) && refused.Reason == ssh.ConnectionFailed:
			return nil, fmt.Errorf("%w from the jump host: %w", ErrUnreachable, err)
		case errors.As(err, &refused):
			return nil, fmt.Errorf("%w: the jump host does not forward: %w", ErrProtocol, err)
		}
		return nil, fmt.Errorf("%w: the jump host: %w", ErrProtocol, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	var timeout net.Error
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w by %s", ErrRefused, addr)
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// closedByPeer reports whether the other side ended the connection.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// watchedConn notes whether the server identified itself: its first line that begins with
// "SSH-", behind any others.
type watchedConn struct {
	net.Conn

	mu   sync.Mutex // guards what follows
	head []byte     // of what was read, until it is identified
	seen bool
}

// maxHead bounds what is kept of what a server says before it identifies itself.
const maxHead = 16 << 10

// Read implements [io.Reader].
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen && len(c.head) < maxHead {
		c.head = append(c.head, p[:n]...)
		if bytes.HasPrefix(c.head, []byte("SSH-")) || bytes.Contains(c.head, []byte("\nSSH-")) {
			c.seen, c.head = true, nil
		}
	}
	return n, err
}

func (c *watchedConn) identified() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}
