package agent

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
)

// TestServeEnds: an error of the listener ends Serve.
func TestServeEnds(t *testing.T) {
	s, err := New(Config{Registry: Lend(newFleet(t).Registry)})
	check(t, err)
	l, err := unixsocket.Listen(filepath.Join(shortDir(t), "agent"))
	check(t, err)
	check(t, l.Close())
	if err := s.Serve(context.Background(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// busyListener has too many files open for a while.
type busyListener struct {
	net.Listener
	errs []error
}

func (l *busyListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return l.Listener.Accept()
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

// TestBusy: the agent outlives that there are too many files open.
func TestBusy(t *testing.T) {
	s, err := New(Config{Registry: Lend(newFleet(t).Registry)})
	check(t, err)
	path := filepath.Join(shortDir(t), "agent")
	l, err := unixsocket.Listen(path)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- s.Serve(ctx, &busyListener{l, []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED}})
	}()
	running{s, path, nil, nil}.dial(t).list()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
