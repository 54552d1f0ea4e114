package api

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
)

// listener asks the kernel who connected, as soon as somebody does: later the socket at the
// other end may be another's. Who may connect has places that nobody else can take. A
// connection without a place is closed at once: it must not keep others waiting.
type listener struct {
	net.Listener
	admits                    func(net.Conn, unixsocket.Peer) bool
	ourPlaces, strangerPlaces chan struct{}
}

func (s *Server) admitting(l net.Listener) *listener {
	return &listener{l, s.admits, make(chan struct{}, maxConnections), make(chan struct{}, maxStrangers)}
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: accepted, peer: peerOf(accepted), places: l.strangerPlaces}
		if l.admits(accepted, c.peer) {
			c.admitted, c.places = true, l.ourPlaces
		}
		select {
		case c.places <- struct{}{}:
			return c, nil
		default:
			accepted.Close()
		}
	}
}

// admits reports whether the user at the other end may connect without a token.
func (s *Server) admits(c net.Conn, peer unixsocket.Peer) bool {
	_, unix := c.(*net.UnixConn)
	return peer.UID == s.uid || unix && slices.Contains(s.cfg.UIDs, peer.UID)
}

// conn is a connection that has a place.
type conn struct {
	net.Conn
	peer     unixsocket.Peer // with a UID of -1 where it is not known
	admitted bool            // its user needs no token
	places   chan struct{}
	once     sync.Once
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.once.Do(func() { <-c.places })
	return c.Conn.Close()
}

// peerOf returns the process at the other end, as far as the kernel knows it.
func peerOf(c net.Conn) unixsocket.Peer {
	switch c := c.(type) {
	case *net.UnixConn:
		if peer, err := unixsocket.PeerOf(c); err == nil {
			return peer
		}
	case *net.TCPConn:
		if uid, err := uidOf(c); err == nil {
			return unixsocket.Peer{UID: uid, Program: c.RemoteAddr().String()}
		}
	}
	return unixsocket.Peer{UID: -1, Program: c.RemoteAddr().String()}
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

func connContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}
