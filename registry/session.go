package registry

import (
	"context"
	"errors"
	"sync"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Session is a registry that a process keeps open for long, such as a daemon. It gives way to
// a process that needs the vault for itself; see [vault.Session]. It is safe for concurrent
// use. Close it once.
type Session struct {
	vaults *vault.Session

	mu       sync.Mutex // guards what follows
	vault    *vault.Vault
	registry *Registry // in that vault
}

// NewSession opens a vault by the function, which is called again after each pause; see
// [vault.NewSession].
func NewSession(ctx context.Context, open func(context.Context) (*vault.Vault, error)) (*Session, error) {
	vaults, err := vault.NewSession(ctx, open)
	if err != nil {
		return nil, err
	}
	return &Session{vaults: vaults}, nil
}

// Use runs fn with the registry, which is another one after a pause. It waits during a pause,
// and fn keeps the session from giving way, so it should be short. The error is fn's, or that
// of [vault.Session.Use].
func (s *Session) Use(ctx context.Context, fn func(*Registry) error) error {
	return s.vaults.Use(ctx, func(v *vault.Vault) error { return fn(s.of(v)) })
}

// of returns the one registry of a vault: it has a cache.
func (s *Session) of(v *vault.Vault) *Registry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vault != v {
		s.vault, s.registry = v, New(v)
	}
	return s.registry
}

// Run runs fn, which works for long, as hive.Dialer.Monitor and [Registry.Watch] do. When the
// session gives way, the vault is closed beneath it: fn must then return an error that
// matches [vault.ErrClosed], and is run again with the registry as it is then. Any other
// error, and nil, end Run.
func (s *Session) Run(ctx context.Context, fn func(context.Context, *Registry) error) error {
	for {
		var r *Registry
		err := s.Use(ctx, func(open *Registry) error {
			r = open
			return nil
		})
		if err != nil {
			return err
		}
		if err := fn(ctx, r); ctx.Err() != nil || !errors.Is(err, vault.ErrClosed) {
			return err
		}
	}
}

// Close waits for the users and closes the vault. A second Close is [vault.ErrClosed].
func (s *Session) Close() error { return s.vaults.Close() }
