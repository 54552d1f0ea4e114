package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// maxConnections is how many are served at a time. Others wait to be accepted.
const maxConnections = 256

// Lender lends the open registry for the time of use, or returns why it cannot. It may
// wait, until ctx ends, while the vault is closed and opened again, as vault.Session.Use does.
// While somebody uses a registry, its vault stays open, and others get that vault too.
type Lender func(ctx context.Context, use func(*registry.Registry) error) error

// Lend lends one registry, which stays open as long as the Server serves.
func Lend(r *registry.Registry) Lender {
	return func(_ context.Context, use func(*registry.Registry) error) error { return use(r) }
}

// Config describes an agent.
type Config struct {
	// Registry has the keys, nodes and pins. It is asked at each request. Required.
	Registry Lender
	// Logger gets refused requests with their causes. Default: nobody.
	Logger *slog.Logger
	// Now is the clock for IdleLock. Default: [time.Now].
	Now func() time.Time
	// AllowUnbound has the fingerprints of keys that also sign files (SSHSIG, as
	// ssh-keygen -Y sign and git do) for any process of the user. They never log in
	// without a bind.
	AllowUnbound []string
	// Confirm is asked before each signature, and an error refuses it. It is called by
	// many goroutines, and returns when ctx ends. Default: nobody is asked.
	Confirm func(ctx context.Context, s registry.Signature) error
	// IdleLock is after how long without a signature the agent locks itself. It is then
	// unlocked with Passphrase. Default: never.
	IdleLock time.Duration
	// Passphrase is required with IdleLock. It is not kept; the caller wipes it.
	Passphrase []byte
}

func (c Config) log() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

func (c Config) now() func() time.Time {
	if c.Now != nil {
		return c.Now
	}
	return time.Now
}

// Server is an SSH agent. It is safe for concurrent use.
type Server struct {
	cfg     Config
	uid     int
	keys    registry.KeyCache
	auditor *auditor
	lock    lock
}

// New returns an agent, which is not locked.
func New(cfg Config) (*Server, error) {
	if cfg.Registry == nil {
		return nil, errors.New("new agent: no registry")
	}
	s := &Server{cfg: cfg, uid: os.Getuid()}
	s.auditor = newAuditor(&s.keys)
	s.lock = lock{now: cfg.now(), sleep: sleep, attempt: make(chan struct{}, 1)}
	s.lock.last = s.lock.now()
	if cfg.IdleLock > 0 {
		own, err := newSecret(cfg.Passphrase)
		if err != nil {
			return nil, fmt.Errorf("new agent: idle lock: %w", err)
		}
		s.lock.idle, s.lock.own = cfg.IdleLock, own
		s.keys.Lifetime = min(cfg.IdleLock, time.Minute)
	}
	s.cfg.Passphrase = nil
	return s, nil
}

// Serve answers the connections of the listener until ctx ends. It closes the listener
// and all connections, waits until no goroutine is left, and returns ctx's error. An
// error of the listener ends it too. Connections that are not of our own user, or not
// over a unix socket, are closed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer s.keys.Forget()
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		<-ctx.Done()
		l.Close()
	})
	places := make(chan struct{}, maxConnections)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := accept(ctx, l)
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("accept a connection: %w", err)
		}
		running.Go(func() {
			defer func() { <-places }()
			s.serveConn(ctx, conn)
		})
	}
}

// accept waits where the process or the machine has too many files open: that passes.
func accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ECONNABORTED) {
			return conn, err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// serveConn serves one connection and closes it.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		close(closed)
	})
	defer func() {
		conn.Close()
		if !stop() {
			<-closed
		}
	}()
	p, err := s.admit(conn)
	if err != nil {
		s.cfg.log().Warn("agent: refused a connection", "error", err)
		return
	}
	c := &connection{server: s, peer: p}
	c.serve(ctx, conn)
}

// admit returns who made a connection, or an error where it is not our own user.
func (s *Server) admit(conn net.Conn) (unixsocket.Peer, error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return unixsocket.Peer{}, errors.New("it is not over a unix socket")
	}
	p, err := unixsocket.PeerOf(c)
	if err != nil {
		return unixsocket.Peer{}, err
	}
	if p.UID != s.uid {
		return unixsocket.Peer{}, fmt.Errorf("uid %d is not ours", p.UID)
	}
	return p, nil
}
