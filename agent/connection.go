package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
)

// connection is one client's connection, with what it has bound.
type connection struct {
	server *Server
	peer   unixsocket.Peer
	binds  binds
}

var (
	errUnknown   = errors.New("a request that this agent does not know")
	errMalformed = errors.New("a malformed request")
)

// serve answers requests, one after the other, until the connection ends.
func (c *connection) serve(ctx context.Context, conn net.Conn) {
	for {
		request, err := readMessage(conn)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				c.log().Info("agent: a connection failed", "error", err)
			}
			return
		}
		answer := c.answer(ctx, request)
		clear(request)
		if err := writeMessage(conn, answer); err != nil {
			return
		}
	}
}

// answer answers one request. It keeps nothing of it.
func (c *connection) answer(ctx context.Context, request []byte) []byte {
	answer, err := c.handle(ctx, request)
	if err != nil {
		c.log().Info("agent: refused a request", "request", request[0], "error", err)
		return failure
	}
	return answer
}

func (c *connection) handle(ctx context.Context, request []byte) ([]byte, error) {
	switch request[0] {
	case msgRequestIdentities:
		if len(request) > 1 {
			return nil, errMalformed
		}
		return c.list(ctx)
	case msgSignRequest:
		var r signRequest
		if ssh.Unmarshal(request, &r) != nil {
			return nil, errMalformed
		}
		return c.sign(ctx, r)
	case msgLock, msgUnlock:
		var r lockRequest
		if ssh.Unmarshal(request, &r) != nil {
			return nil, errMalformed
		}
		return success, c.lock(ctx, request[0], r.Passphrase)
	case msgExtension:
		var r extensionRequest
		if ssh.Unmarshal(request, &r) != nil {
			return nil, errMalformed
		}
		if r.Name != extensionBind {
			return nil, fmt.Errorf("%w: extension %.80q", errUnknown, r.Name)
		}
		return success, c.binds.add(r.Contents)
	}
	return nil, errUnknown
}

// lock locks or unlocks the agent. An SSH client has no use for it; one that forwards
// would let the remote host do it.
func (c *connection) lock(ctx context.Context, message byte, passphrase []byte) error {
	if !c.binds.none() {
		return errors.New("a connection with a bind does not lock and unlock")
	}
	if message == msgLock {
		err := c.server.lock.close(ctx, passphrase)
		if err == nil {
			c.server.keys.Forget()
		}
		return err
	}
	return c.server.lock.unlock(ctx, passphrase)
}

func (c *connection) log() *slog.Logger {
	return c.server.cfg.log().With("peer", c.peer.String())
}
