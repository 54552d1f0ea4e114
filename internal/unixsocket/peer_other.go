//go:build !linux

package unixsocket

import (
	"errors"
	"net"
)

// PeerOf does not know how to ask another kernel, so nobody is served there.
func PeerOf(*net.UnixConn) (Peer, error) {
	return Peer{}, errors.ErrUnsupported
}
