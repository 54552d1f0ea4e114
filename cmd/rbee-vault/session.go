package main

import (
	"bytes"
	"context"
	"sync"

	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// session is the registry of a vault that stays open for long. It gives way to a rotation
// by another process, and then opens the vault again without a question.
type session struct {
	*vault.Session

	mu       sync.Mutex // guards what follows
	vault    *vault.Vault
	registry *registry.Registry // in that vault
}

// openSession opens the vault, and may ask for a passphrase or a PIN. When it opens the
// vault again, nobody is asked: the identities and passphrases of the first time are
// kept. The caller closes the session.
func (a *app) openSession(ctx context.Context) (*session, error) {
	cfg, err := a.config(ctx)
	if err != nil {
		return nil, err
	}
	opened := false // guarded by the Session, which opens once at a time
	if cfg.Passphrase != nil {
		ask, typed := cfg.Passphrase, map[string][]byte{} // by what it is for
		cfg.Passphrase = func(ctx context.Context, what string, attempt int) ([]byte, error) {
			if opened {
				if attempt > 1 || typed[what] == nil {
					return nil, vault.ErrWrongKey
				}
				return bytes.Clone(typed[what]), nil
			}
			passphrase, err := ask(ctx, what, attempt)
			clear(typed[what])
			typed[what] = bytes.Clone(passphrase)
			return passphrase, err
		}
	}
	open := func(ctx context.Context) (*vault.Vault, error) {
		if opened {
			ctx = keyring.WithoutPrompt(ctx)
		}
		v, err := vault.Open(ctx, cfg)
		switch {
		case err != nil && opened && ctx.Err() == nil:
			a.ui.warn("the vault does not open again: %v", err)
		case err == nil && !opened:
			// What was accepted was accepted for this one.
			opened, cfg.ConfirmSigner, cfg.AcceptRollback = true, nil, false
			a.muted = true
		}
		return v, err
	}
	s, err := vault.NewSession(ctx, open)
	if err != nil {
		return nil, err
	}
	return &session{Session: s}, nil
}

// withSession opens the vault, runs fn and closes it.
func (a *app) withSession(ctx context.Context, fn func(*session) error) error {
	s, err := a.openSession(ctx)
	if err != nil {
		return err
	}
	err = fn(s)
	if e := s.Close(); err == nil {
		err = e
	}
	return err
}

// lend is an [agent.Lender].
func (s *session) lend(ctx context.Context, use func(*registry.Registry) error) error {
	return s.Use(ctx, func(v *vault.Vault) error { return use(s.of(v)) })
}

// of returns the one registry of a vault: it has a cache.
func (s *session) of(v *vault.Vault) *registry.Registry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.vault != v {
		s.vault, s.registry = v, registry.New(v)
	}
	return s.registry
}
