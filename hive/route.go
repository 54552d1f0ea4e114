package hive

import (
	"context"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// Route returns the nodes to log in to for a node, one through the other; the last is the
// node itself. A missing node is [registry.ErrNotFound].
func (d *Dialer) Route(ctx context.Context, name string) ([]registry.Node, error) {
	return d.route(ctx, name)
}
