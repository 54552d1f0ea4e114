package hive

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// DefaultTimeout is the time for one login.
const DefaultTimeout = 10 * time.Second

// Dialer connects to the nodes of a registry. It is safe for concurrent use; its fields
// are not changed once it is used.
type Dialer struct {
	// Registry has the nodes, their keys and their pins. Required.
	Registry *registry.Registry
	// Timeout is for one login: dial, handshake and authentication, not the wait for other
	// logins to the address. Each jump has its own. Default: [DefaultTimeout].
	Timeout time.Duration
	// Agent is asked for a key where a node has none of its own. Nil: nobody is.
	Agent agent.Agent

	limits  limiter
	signers signerCache
}

func (d *Dialer) timeout() time.Duration {
	if d.Timeout > 0 {
		return d.Timeout
	}
	return DefaultTimeout
}

// Conn is a connection with a node. The caller closes it.
type Conn struct {
	*ssh.Client
	Node  registry.Node
	jumps []*ssh.Client // that it goes through, the first hop first
}

// client returns nil for no connection.
func (c *Conn) client() *ssh.Client {
	if c == nil {
		return nil
	}
	return c.Client
}

// Close closes the connection, and those that it goes through.
func (c *Conn) Close() error {
	if c == nil {
		return nil
	}
	err := c.Client.Close()
	for i := len(c.jumps) - 1; i >= 0; i-- {
		c.jumps[i].Close()
	}
	return err
}

// Dial connects to the node and logs in, through the nodes that it is reached through. An
// error is an *[Error] around one of this package's, [registry.ErrNotFound], or ctx's own.
func (d *Dialer) Dial(ctx context.Context, name string) (*Conn, error) {
	route, err := d.route(ctx, name)
	if err != nil {
		return nil, err
	}
	return d.dialRoute(ctx, route)
}

// dialRoute logs in to one node through the other. It returns nil for no nodes.
func (d *Dialer) dialRoute(ctx context.Context, route []registry.Node) (*Conn, error) {
	var conn *Conn
	for _, node := range route {
		next := &Conn{Node: node}
		if conn != nil {
			next.jumps = append(conn.jumps, conn.Client)
		}
		var err error
		if next.Client, err = d.login(ctx, conn.client(), node); err != nil {
			conn.Close()
			return nil, nodeError(ctx, node, err)
		}
		conn = next
	}
	return conn, nil
}

// nodeError says which node an error is of. The end of the caller's own context says
// nothing of a node.
func nodeError(ctx context.Context, node registry.Node, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrTimeout) {
		err = fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return &Error{Node: node.Name, Err: err}
}

// route returns the nodes to log in to, one through the other; the last is the node. The
// registry keeps jumps short and out of circles; a row that it did not write, or two reads
// with a change between them, may show others.
func (d *Dialer) route(ctx context.Context, name string) ([]registry.Node, error) {
	var route []registry.Node // the node first
	for at := name; at != ""; {
		if len(route) > registry.MaxJumps {
			return nil, &Error{Node: name, Err: ErrJumpLoop}
		}
		n, err := d.Registry.GetNode(ctx, at)
		if err != nil && at != name && ctx.Err() == nil {
			err = &Error{Node: at, Err: err}
		}
		if err != nil {
			return nil, err
		}
		route = append(route, n)
		at = n.ProxyJump
	}
	slices.Reverse(route)
	return route, nil
}

// address is where a node's sshd listens.
func address(n registry.Node) string {
	return net.JoinHostPort(n.SSHHost, strconv.Itoa(int(n.SSHPort)))
}

// login connects to a node, through another connection where via is not nil, sees that it
// is the node, and logs in.
func (d *Dialer) login(ctx context.Context, via *ssh.Client, node registry.Node) (*ssh.Client, error) {
	pins, err := d.pins(ctx, node.Name)
	if err != nil {
		return nil, err
	}
	methods, err := d.authentication(ctx, node)
	missing := errors.Is(err, ErrNoKey) // reported when the host key was compared
	if err != nil && !missing {
		return nil, err
	}
	check := func(key ssh.PublicKey) error {
		if bad := pins.check(key); bad != nil {
			return bad
		}
		if missing {
			return err
		}
		return nil
	}
	h := handshake{user: node.SSHUser, auth: methods, algorithms: pins.algorithms(), check: check}
	client, err := d.shake(ctx, via, address(node), h)
	var none *ssh.AlgorithmNegotiationError
	if errors.As(err, &none) && len(pins) > 0 && h.failedAtHostKey(none) {
		// The server has keys of other types only. Which, a second connection shows.
		h.algorithms, h.auth = nil, nil
		h.check = func(key ssh.PublicKey) error { return &HostKeyError{Key: key} }
		if _, again := d.shake(ctx, via, address(node), h); errors.As(again, new(*HostKeyError)) {
			err = again
		}
	}
	return client, err
}
