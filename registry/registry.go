package registry

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Errors of this package. Compare with errors.Is; the errors of package vault
// come through as well.
var (
	// ErrNotFound: no node, or no SSH key, of that name.
	ErrNotFound = errors.New("not found")

	// ErrExists: the name, or the key, is taken.
	ErrExists = errors.New("already exists")

	// ErrInvalid: a value was refused. A *FieldError in the chain names the
	// field and the rule.
	ErrInvalid = wire.ErrInvalid

	// ErrBadRow: a row of the vault cannot be read as what it should be.
	// Nothing in this package writes such a row.
	ErrBadRow = errors.New("unreadable row")

	// ErrNotRegistry: a plain SQLite file without the table of nodes.
	ErrNotRegistry = errors.New("not a node registry")

	// ErrLegacyDamaged: a plain SQLite file to be imported cannot be read to its
	// end.
	ErrLegacyDamaged = errors.New("the plaintext file is damaged")
)

// FieldError says which field was refused and by which rule. It never holds
// the value, which may be a secret in the wrong place. It is ErrInvalid.
type FieldError = wire.FieldError

// Registry is the fleet's nodes in a vault. It is safe for use by many
// goroutines at once.
type Registry struct {
	v     *vault.Vault
	owned bool
	cache nodeCache
	used  atomic.Bool // something was read already
}

// revision is the revision of the database, or the zero Revision for the first read of a
// handle: a program that reads once then needs one connection, and the cache nothing.
func (r *Registry) revision(ctx context.Context) (vault.Revision, error) {
	if !r.used.Swap(true) {
		return vault.Revision{}, nil
	}
	return r.v.Revision(ctx)
}

// Open opens the vault that cfg describes, which must exist. The errors are
// those of vault.Open. The caller closes the Registry.
func Open(ctx context.Context, cfg vault.Config) (*Registry, error) {
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	return &Registry{v: v, owned: true}, nil
}

// New returns a Registry over an open vault, which stays the caller's to
// close.
func New(v *vault.Vault) *Registry {
	return &Registry{v: v}
}

// Vault returns the vault below.
func (r *Registry) Vault() *vault.Vault { return r.v }

// Close closes the vault if Open opened it, and does nothing after New.
func (r *Registry) Close() error {
	if !r.owned {
		return nil
	}
	if err := r.v.Close(); err != nil {
		return fmt.Errorf("close registry: %w", err)
	}
	return nil
}
