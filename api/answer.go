package api

import (
	"errors"
	"net/http"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// The errors of requests, beside those of the registry.
var (
	// errPrecondition: the node is not as the client saw it.
	errPrecondition = errors.New("the node was changed meanwhile")
	// errNoSigning: the server was started without keys.
	errNoSigning = errors.New("this server signs nothing")
	// errBusy: there are too many streams, or the server ends.
	errBusy = errors.New("the server has no place for another stream")
)

// answer sends a value as JSON on one line.
func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	data, err := wire.Marshal(v)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(data, '\n'))
}

func (s *Server) problem(w http.ResponseWriter, status int, p Problem) {
	s.answer(w, status, map[string]Problem{"error": p})
}

// fail sends an error.
func (s *Server) fail(w http.ResponseWriter, err error) {
	status, p := s.explain(err)
	s.problem(w, status, p)
}

// explain returns the status and the problem of an error. What is the server's fault is
// logged too.
func (s *Server) explain(err error) (status int, p Problem) {
	switch {
	case errors.Is(err, errPrecondition):
		return http.StatusPreconditionFailed, Problem{Code: 15, Name: "changed_meanwhile", Message: err.Error(), Hint: "Read the node again, and repeat with its ETag."}
	case errors.Is(err, errNoSigning):
		return http.StatusNotImplemented, Problem{Code: 1, Name: "no_signing", Message: err.Error(), Hint: "The operator can allow it: rbee-vault serve --sign"}
	case errors.Is(err, errBusy):
		return http.StatusServiceUnavailable, Problem{Code: 11, Name: "busy", Message: err.Error(), Hint: "Try again later."}
	case errors.Is(err, wire.ErrInvalid), errors.Is(err, registry.ErrInUse):
		return http.StatusBadRequest, s.cfg.Explain(err)
	case errors.Is(err, registry.ErrNotFound):
		return http.StatusNotFound, s.cfg.Explain(err)
	case errors.Is(err, registry.ErrExists):
		return http.StatusConflict, s.cfg.Explain(err)
	}
	p = s.cfg.Explain(err)
	status = http.StatusInternalServerError
	switch p.Code {
	case 10, 11, 12, 13, 130: // the vault cannot be opened now
		status = http.StatusServiceUnavailable
	case 16:
		status = http.StatusBadRequest
	}
	s.log.Error("request failed", "name", p.Name, "error", err)
	return status, p
}
