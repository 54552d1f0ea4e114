package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee-vault/agent"
)

// Limits of what a client may hold or send.
const (
	maxConnections = 1024 // to each listener, of those who may connect
	maxStrangers   = 128  // of others, who may have the token
	maxHeader      = 16 << 10
	maxBody        = 1 << 20
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 30 * time.Second
	answerTimeout  = 2 * time.Minute // from the request on; a stream has its own
	idleTimeout    = 2 * time.Minute
	// drainTimeout is how long running requests get to end, at the end of Serve.
	drainTimeout = 10 * time.Second
)

// MinToken is the least length of a token, in bytes.
const MinToken = 32

// Lender lends the open registry; see [agent.Lender]. [registry.Session.Use] is one.
type Lender = agent.Lender

// Problem is what an error means to a client: the exit code and the name that the command
// has for it, and the next step.
type Problem struct {
	Code    int    `json:"code"`
	Name    string `json:"name"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Config describes a server.
type Config struct {
	// Registry lends the registry, at each request. Required.
	Registry Lender
	// Explain says what an error means. Required.
	Explain func(error) Problem
	// Agent signs logins, by its rules. Nil: nothing is signed.
	Agent *agent.Server
	// Version of the program, for /health.
	Version string
	// UIDs are the users besides ours who may connect to the unix socket.
	UIDs []int
	// Token lets any user connect to a loopback listener. Nil: our own user alone may. It
	// has at least [MinToken] bytes.
	Token []byte
	// Logger gets what went wrong, and refused connections. Nil: nobody.
	Logger *slog.Logger
}

// Server serves the registry. It is safe for concurrent use.
type Server struct {
	cfg     Config
	uid     int
	log     *slog.Logger
	watch   *hub
	metrics metrics
	handler http.Handler
	// answerTimeout is shorter in tests.
	answerTimeout time.Duration
}

// New returns a server for [Server.Serve].
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Registry == nil, cfg.Explain == nil:
		return nil, errors.New("new server: Registry and Explain are required")
	case cfg.Token != nil && len(cfg.Token) < MinToken:
		return nil, fmt.Errorf("new server: a token of %d bytes, %d is the least", len(cfg.Token), MinToken)
	}
	s := &Server{cfg: cfg, uid: os.Getuid(), log: cfg.Logger, answerTimeout: answerTimeout}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.watch = newHub(cfg.Registry)
	s.handler = s.guard(s.routes())
	return s, nil
}

// routes are the routes, without the guard.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /openapi.json", s.openAPI)
	mux.HandleFunc("GET /metrics", s.writeMetrics)
	mux.HandleFunc("POST /v2/registry/beehives/add", s.keeperAdd)
	mux.HandleFunc("GET /v2/registry/beehives/list", s.keeperList)
	mux.HandleFunc("POST /v2/registry/beehives/remove", s.keeperRemove)
	mux.HandleFunc("POST /v2/registry/beehives/states", s.updateStates)
	mux.HandleFunc("GET /v2/registry/beehives/{name}", s.getNode)
	mux.HandleFunc("PUT /v2/registry/beehives/{name}", s.putNode)
	mux.HandleFunc("PATCH /v2/registry/beehives/{name}", s.patchNode)
	mux.HandleFunc("DELETE /v2/registry/beehives/{name}", s.deleteNode)
	mux.HandleFunc("POST /v2/registry/beehives/{name}/sign", s.sign)
	mux.HandleFunc("GET /v2/registry/watch", s.watchNodes)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.problem(w, http.StatusNotFound, Problem{Code: 14, Name: "not_found", Message: "there is no such route", Hint: "GET /openapi.json lists the routes."})
	})
	return mux
}

// Serve answers on the listeners until ctx ends, or one of them fails. Running requests then
// get some seconds to end. It closes the listeners, and returns nil after ctx has ended.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	// Requests go on for a while behind the end of ctx: what is committed is answered so.
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      s.answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       connContext,
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { s.watch.run(requests) })
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		running.Go(func() { failed <- server.Serve(s.admitting(l)) })
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	s.watch.stop() // streams end; requests go on
	draining, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer stop()
	if server.Shutdown(draining) != nil {
		server.Close()
	}
	cancel() // the hub ends
	return err
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, struct {
		Status  string `json:"status"`
		Version string `json:"version"`
	}{"ok", s.cfg.Version})
}

// body reads a request's body. A body that is too long is answered, and not ok.
func (s *Server) body(w http.ResponseWriter, r *http.Request) (data []byte, ok bool) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case err == nil:
		return data, true
	case errors.As(err, &long):
		s.problem(w, http.StatusRequestEntityTooLarge, Problem{Code: 16, Name: "invalid", Message: fmt.Sprintf("the body has more than %d bytes", maxBody)})
	default:
		s.problem(w, http.StatusBadRequest, Problem{Code: 16, Name: "invalid", Message: "the body ends early"})
	}
	return nil, false
}
