package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// guard lets in who may connect. It comes before every route.
func (s *Server) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(s.refuseCrossOrigin))
	protected := crossOrigin.Handler(s.metrics.count(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r)
		switch {
		case c == nil:
			s.refuse(w, http.StatusForbidden, Problem{Code: 1, Name: "refused", Message: "connections of this kind are not served"})
			return
		case isTCP(c):
			if !s.checkHost(w, r, c) || !s.admitLoopback(w, r, c) {
				return
			}
		case !c.admitted:
			s.log.Warn("refused a connection", "uid", c.peer.UID)
			s.refuse(w, http.StatusForbidden, Problem{Code: 1, Name: "refused", Message: "this user may not connect", Hint: "The operator can allow it: rbee-vault serve --allow-uid UID"})
			return
		}
		if fromAnotherOrigin(r) {
			s.refuseCrossOrigin(w, r)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		protected.ServeHTTP(w, r)
	})
}

func isTCP(c *conn) bool {
	_, ok := c.Conn.(*net.TCPConn)
	return ok
}

// refuse answers and ends the connection, whose place another one may need.
func (s *Server) refuse(w http.ResponseWriter, status int, p Problem) {
	w.Header().Set("Connection", "close")
	s.problem(w, status, p)
}

func (s *Server) refuseCrossOrigin(w http.ResponseWriter, _ *http.Request) {
	s.refuse(w, http.StatusForbidden, Problem{Code: 1, Name: "cross_origin", Message: "a web page of another origin sent this request"})
}

// fromAnotherOrigin reports whether a browser says that a page of another origin sent the
// request. [http.CrossOriginProtection] lets reads pass, whose answer the page cannot see: here
// it could hold streams, and time answers.
func fromAnotherOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || u.Host != r.Host
}

// checkHost refuses a name that somebody else's DNS gave to the loopback address: a web
// page could use it to read the registry.
func (s *Server) checkHost(w http.ResponseWriter, r *http.Request, c *conn) bool {
	_, port, err := net.SplitHostPort(c.LocalAddr().String())
	if err == nil && (r.Host == c.LocalAddr().String() || r.Host == net.JoinHostPort("localhost", port)) {
		return true
	}
	s.refuse(w, http.StatusMisdirectedRequest, Problem{Code: 1, Name: "wrong_host", Message: "the request names another host"})
	return false
}

// admitLoopback lets our own user in, and who has the token. The errors are the earlier
// daemon's.
func (s *Server) admitLoopback(w http.ResponseWriter, r *http.Request, c *conn) bool {
	given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if isBearer && s.cfg.Token != nil {
		want, got := sha256.Sum256(s.cfg.Token), sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(want[:], got[:]) == 1 {
			return true
		}
	} else if !isBearer && c.admitted {
		return true
	}
	code, message := "MISSING_API_KEY", "Missing API key"
	if isBearer {
		code, message = "INVALID_API_KEY", "Invalid API key"
	}
	s.log.Warn("refused a connection", "from", c.RemoteAddr(), "reason", message)
	w.Header().Set("WWW-Authenticate", "Bearer")
	w.Header().Set("Connection", "close")
	s.answer(w, http.StatusUnauthorized, map[string]any{"error": map[string]string{"code": code, "message": message}})
	return false
}
