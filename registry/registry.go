package registry

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// The errors of this package. Compare them with errors.Is. The errors of package
// vault pass through.
var (
	// ErrNotFound: there is no such node, SSH key, host key or setting.
	ErrNotFound = errors.New("not found")

	// ErrExists: the node or the key exists already.
	ErrExists = errors.New("already exists")

	// ErrInvalid: a value was refused. A *FieldError in the chain names the
	// field and the rule.
	ErrInvalid = wire.ErrInvalid

	// ErrBadRow: a row of the vault is not valid. Nothing in this package writes
	// such a row.
	ErrBadRow = errors.New("unreadable row")

	// ErrNotRegistry: a plain SQLite file to be imported has no table of nodes.
	ErrNotRegistry = errors.New("not a node registry")

	// ErrLegacyDamaged: a plain SQLite file to be imported is damaged.
	ErrLegacyDamaged = errors.New("the plaintext file is damaged")

	// ErrInUse: nodes still use the SSH key, or jump through the node.
	ErrInUse = errors.New("in use")

	// ErrWeakKey: an RSA key of fewer than 3072 bits.
	ErrWeakKey = errors.New("weak key")

	// ErrConflict: a node of a backup is in the vault already, and differs there.
	ErrConflict = errors.New("differs in the vault")
	// ErrHostKeyChanged: another host key of that type is pinned for the node. A
	// caller who expects the change gives the fingerprint of the old one.
	ErrHostKeyChanged = errors.New("host key has changed")
)

// FieldError says which field was refused and by which rule. It never holds the
// value: somebody may have put a secret into the wrong field. It is ErrInvalid.
type FieldError = wire.FieldError

// Registry is the fleet's nodes in a vault. It is safe for use by many
// goroutines at once.
type Registry struct {
	v     *vault.Vault
	owned bool
	cache nodeCache
	used  atomic.Bool // a node was read or listed before

	statuses lastStatuses
}

// revision returns the data revision of the database for the cache. The first
// call returns the zero Revision, which is never cached: so a program that reads
// once does not need a second connection.
func (r *Registry) revision(ctx context.Context) (vault.Revision, error) {
	if !r.used.Swap(true) {
		return vault.Revision{}, nil
	}
	return r.v.Revision(ctx)
}

// Open opens the vault that cfg describes. It must exist. The errors are those of
// vault.Open. The caller closes the Registry.
func Open(ctx context.Context, cfg vault.Config) (*Registry, error) {
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	r := New(v)
	r.owned = true
	return r, nil
}

// New returns a Registry over an open vault. The caller closes the vault.
func New(v *vault.Vault) *Registry {
	return &Registry{v: v, cache: nodeCache{refreshing: make(chan struct{}, 1)}}
}

// Vault returns the vault that holds the registry.
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
