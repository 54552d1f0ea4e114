package main

import (
	"bytes"
	"context"

	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// openSession opens the vault, as opener says. The caller closes the session.
func (a *app) openSession(ctx context.Context) (*registry.Session, error) {
	open, err := a.opener(ctx)
	if err != nil {
		return nil, err
	}
	return registry.NewSession(ctx, open)
}

// opener returns the function that opens the vault, for one session after the other. The first
// time it may ask for a passphrase or a PIN. When it opens the vault again, nobody is asked: the
// identities and passphrases of the first time are kept.
func (a *app) opener(ctx context.Context) (func(context.Context) (*vault.Vault, error), error) {
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
	return func(ctx context.Context) (*vault.Vault, error) {
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
			a.unattended = true
		}
		return v, err
	}, nil
}

// withSession opens the vault, runs fn and closes it.
func (a *app) withSession(ctx context.Context, fn func(*registry.Session) error) error {
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
