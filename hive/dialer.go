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
	// Draft is taken for the node of its name. Nil: every node is in the registry.
	Draft *Draft

	limits  limiter
	signers signerCache
}

// Draft is a node that is not in the registry yet: a login decides whether it will be. The
// nodes that it is reached through are in the registry.
type Draft struct {
	Node     registry.Node
	Signer   ssh.Signer      // of the key that it will use in the vault; nil: none
	HostKeys []ssh.PublicKey // that will be pinned
}

// draft returns the draft of that name, or nil.
func (d *Dialer) draft(name string) *Draft {
	if d.Draft != nil && d.Draft.Node.Name == name {
		return d.Draft
	}
	return nil
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
	return d.DialBy(ctx, name, d.authentication)
}

// Access returns how to log in to a node. An error that matches [ErrNoKey] is reported when
// the host key was compared.
type Access func(ctx context.Context, node registry.Node) ([]ssh.AuthMethod, error)

// DialBy is Dial with another way to log in to the node itself; its jumps are logged in to
// as ever.
func (d *Dialer) DialBy(ctx context.Context, name string, access Access) (*Conn, error) {
	route, err := d.route(ctx, name)
	if err != nil {
		return nil, err
	}
	last := len(route) - 1
	via, err := d.dialRoute(ctx, route[:last])
	if err != nil {
		return nil, err
	}
	return d.extend(ctx, via, route[last], access)
}

// dialRoute logs in to one node through the other. It returns nil for no nodes.
func (d *Dialer) dialRoute(ctx context.Context, route []registry.Node) (*Conn, error) {
	var conn *Conn
	for _, node := range route {
		var err error
		if conn, err = d.extend(ctx, conn, node, d.authentication); err != nil {
			return nil, err
		}
	}
	return conn, nil
}

// extend logs in to a node, through via where that is not nil. The connection owns via,
// which is closed on an error.
func (d *Dialer) extend(ctx context.Context, via *Conn, node registry.Node, access Access) (*Conn, error) {
	client, err := d.login(ctx, via.client(), node, access)
	if err != nil {
		via.Close()
		return nil, nodeError(ctx, node, err)
	}
	conn := &Conn{Client: client, Node: node}
	if via != nil {
		conn.jumps = append(via.jumps, via.Client)
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
		n, err := d.node(ctx, at)
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

func (d *Dialer) node(ctx context.Context, name string) (registry.Node, error) {
	if draft := d.draft(name); draft != nil {
		return draft.Node, nil
	}
	return d.Registry.GetNode(ctx, name)
}

// address is where a node's sshd listens.
func address(n registry.Node) string {
	return net.JoinHostPort(n.SSHHost, strconv.Itoa(int(n.SSHPort)))
}

// login connects to a node, through another connection where via is not nil, sees that it
// is the node, and logs in.
func (d *Dialer) login(ctx context.Context, via *ssh.Client, node registry.Node, access Access) (*ssh.Client, error) {
	pins, err := d.pins(ctx, node.Name)
	if err != nil {
		return nil, err
	}
	methods, err := access(ctx, node)
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
