package main

import (
	"context"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// sessionStore holds the vault for the time of a call: a check that waits for nodes, for a
// person, or for its next round gives way to a rotation.
type sessionStore struct{ session *registry.Session }

var _ checkStore = sessionStore{}

// ListHostKeys implements [checkStore].
func (s sessionStore) ListHostKeys(ctx context.Context, names ...string) (keys []registry.HostKey, err error) {
	err = s.session.Use(ctx, func(r *registry.Registry) (err error) {
		keys, err = r.ListHostKeys(ctx, names...)
		return err
	})
	return keys, err
}

// TrustHostKeys implements [checkStore].
func (s sessionStore) TrustHostKeys(ctx context.Context, keys map[string][]ssh.PublicKey, replaces ...string) (n int, err error) {
	err = s.session.Use(ctx, func(r *registry.Registry) (err error) {
		n, err = r.TrustHostKeys(ctx, keys, replaces...)
		return err
	})
	return n, err
}

// UpdateStates implements [checkStore].
func (s sessionStore) UpdateStates(ctx context.Context, states []registry.State) (report registry.StatesReport, err error) {
	err = s.session.Use(ctx, func(r *registry.Registry) (err error) {
		report, err = r.UpdateStates(ctx, states)
		return err
	})
	return report, err
}

// UpdateCapabilities implements [checkStore].
func (s sessionStore) UpdateCapabilities(ctx context.Context, name string, backends []string, devices map[string]uint32) error {
	return s.session.Use(ctx, func(r *registry.Registry) error {
		return r.UpdateCapabilities(ctx, name, backends, devices)
	})
}
