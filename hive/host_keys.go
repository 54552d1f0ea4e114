package hive

import (
	"context"
	"errors"

	"golang.org/x/crypto/ssh"
)

// errFetched ends a handshake that was for the host key alone.
var errFetched = errors.New("host key fetched")

// HostKeys fetches the host keys of a node, one of each type that the server has. It logs
// in to the jumps of the node, whose keys must be pinned, and not to the node itself. What
// it returns proves nothing: a person compares it with what the machine says. A busy server is
// asked again, as by [Dialer.Probe]. Errors are those of [Dialer.Dial].
func (d *Dialer) HostKeys(ctx context.Context, name string) ([]ssh.PublicKey, error) {
	route, err := d.route(ctx, name)
	if err != nil {
		return nil, err
	}
	node := route[len(route)-1]
	var via *Conn
	err = retryBusy(ctx, func() (err error) {
		via, err = d.dialRoute(ctx, route[:len(route)-1])
		return err
	})
	if err != nil {
		return nil, err
	}
	defer via.Close()
	var keys []ssh.PublicKey
	for _, t := range hostKeyTypes {
		var key ssh.PublicKey
		h := handshake{user: node.SSHUser, algorithms: algorithmsOf(t), check: func(k ssh.PublicKey) error {
			key = k
			return errFetched
		}}
		err := retryBusy(ctx, func() error {
			_, err := d.shake(ctx, via.client(), address(node), h)
			return err
		})
		var none *ssh.AlgorithmNegotiationError
		switch {
		case errors.Is(err, errFetched):
			keys = append(keys, key)
		case errors.As(err, &none) && h.failedAtHostKey(none): // it has no such key
		default:
			return nil, nodeError(ctx, node, err)
		}
	}
	return keys, nil
}
