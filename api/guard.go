package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
)

// connKey is the key of a request's connection in its context.
type connKey struct{}

func connContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// guard lets in who may connect. It comes before every route.
func (s *Server) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.problem(w, http.StatusForbidden, Problem{Code: 1, Name: "cross_origin", Message: "a web page of another origin sent this request"})
	}))
	protected := crossOrigin.Handler(s.metrics.count(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _ := r.Context().Value(connKey{}).(net.Conn)
		if limited, ok := conn.(*limitedConn); ok {
			conn = limited.Conn
		}
		switch c := conn.(type) {
		case *net.UnixConn:
			if !s.admitPeer(w, c) {
				return
			}
		case *net.TCPConn:
			if !s.checkHost(w, r, c) || !s.admitLoopback(w, r, c) {
				return
			}
		default:
			s.problem(w, http.StatusForbidden, Problem{Code: 1, Name: "refused", Message: "connections of this kind are not served"})
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// peerOf returns the process at the other end of a request's connection, where it is known.
func peerOf(r *http.Request) unixsocket.Peer {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	if limited, ok := conn.(*limitedConn); ok {
		conn = limited.Conn
	}
	if c, ok := conn.(*net.UnixConn); ok {
		peer, _ := unixsocket.PeerOf(c)
		return peer
	}
	return unixsocket.Peer{Program: r.RemoteAddr}
}

// admitPeer lets our own user in, and those that the operator named.
func (s *Server) admitPeer(w http.ResponseWriter, c *net.UnixConn) bool {
	peer, err := unixsocket.PeerOf(c)
	if err == nil && (peer.UID == s.uid || slices.Contains(s.cfg.UIDs, peer.UID)) {
		return true
	}
	s.log.Warn("refused a connection", "uid", peer.UID, "error", err)
	s.problem(w, http.StatusForbidden, Problem{Code: 1, Name: "refused", Message: "this user may not connect", Hint: "The operator can allow it: rbee-vault serve --allow-uid UID"})
	return false
}

// checkHost refuses a name that somebody else's DNS gave to the loopback address: a web
// page could use it to read the registry.
func (s *Server) checkHost(w http.ResponseWriter, r *http.Request, c *net.TCPConn) bool {
	_, port, err := net.SplitHostPort(c.LocalAddr().String())
	if err == nil && (r.Host == c.LocalAddr().String() || r.Host == net.JoinHostPort("localhost", port)) {
		return true
	}
	s.problem(w, http.StatusMisdirectedRequest, Problem{Code: 1, Name: "wrong_host", Message: "the request names another host"})
	return false
}

// admitLoopback lets our own user in, and who has the token. The errors are the earlier
// daemon's.
func (s *Server) admitLoopback(w http.ResponseWriter, r *http.Request, c *net.TCPConn) bool {
	given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if isBearer && s.cfg.Token != nil {
		want, got := sha256.Sum256(s.cfg.Token), sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(want[:], got[:]) == 1 {
			return true
		}
	} else if !isBearer {
		if uid, err := uidOf(c); err == nil && uid == s.uid {
			return true
		}
	}
	code, message := "MISSING_API_KEY", "Missing API key"
	if isBearer {
		code, message = "INVALID_API_KEY", "Invalid API key"
	}
	s.log.Warn("refused a connection", "from", c.RemoteAddr(), "reason", message)
	w.Header().Set("WWW-Authenticate", "Bearer")
	s.answer(w, http.StatusUnauthorized, map[string]any{"error": map[string]string{"code": code, "message": message}})
	return false
}
