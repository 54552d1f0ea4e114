package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

func newNodeRemove(a *app) *cobra.Command {
	var o selectOptions
	cmd := &cobra.Command{
		Use:   "remove NAME|GLOB...",
		Short: "Remove nodes, with their host keys and with SSH keys that no other node uses",
		Args:  cobra.ArbitraryArgs,
		RunE:  func(cmd *cobra.Command, args []string) error { return runNodeRemove(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runNodeRemove(ctx context.Context, a *app, o selectOptions, args []string) error {
	selection, err := o.parseSome(args)
	if err != nil {
		return err
	}
	return removeNodes(ctx, a, selection)
}

// removalOrder returns the names so that a node comes before those that it is reached
// through, and else as they were. A node that others jump through, which stay, is
// ErrInUse.
func removalOrder(names []string, jumps map[string]string) ([]string, error) {
	doomed := map[string]bool{}
	for _, name := range names {
		doomed[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(jumps)) {
		if jump := jumps[name]; doomed[jump] && !doomed[name] {
			return nil, withHint(fmt.Errorf("remove node %q: %w: %s jumps through it", jump, registry.ErrInUse, name),
				"Nothing was removed. Remove that node too, or let it jump elsewhere first: rbee-vault node update %s --jump ''", name)
		}
	}
	hops := func(name string) int {
		n := 0
		for at := jumps[name]; at != "" && n <= registry.MaxJumps; at = jumps[at] {
			n++
		}
		return n
	}
	ordered := slices.Clone(names)
	slices.SortStableFunc(ordered, func(a, b string) int { return hops(b) - hops(a) })
	return ordered, nil
}

// doomedKeys returns the SSH keys that are removed with the nodes, because no other node
// uses them. Each is under the name of the last node that uses it.
func doomedKeys(ctx context.Context, r *registry.Registry, names []string) (map[string]registry.SSHKey, error) {
	keys, err := r.ListSSHKeys(ctx)
	if err != nil {
		return nil, err
	}
	doomed := map[string]registry.SSHKey{}
	for _, k := range keys {
		last := -1
		for _, node := range k.Nodes {
			at := slices.Index(names, node)
			if at < 0 {
				last = -1
				break
			}
			last = max(last, at)
		}
		if last >= 0 {
			doomed[names[last]] = k
		}
	}
	return doomed, nil
}

// removedNodeJSON is a removed node, and the key that was removed with it.
type removedNodeJSON struct {
	Removed string  `json:"removed"`
	SSHKey  *string `json:"removed_ssh_key"`
}

// removeNodes asks for confirmation, and removes all selected nodes. If one of them does
// not exist, it returns an error before it asks or removes anything.
func removeNodes(ctx context.Context, a *app, selection nodeSelection) error {
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		names, err := selection.removable(ctx, a, r)
		if err != nil || len(names) == 0 {
			return err
		}
		jumps, err := r.Jumps(ctx)
		if err != nil {
			return err
		}
		if names, err = removalOrder(names, jumps); err != nil {
			return err
		}
		doomed, err := doomedKeys(ctx, r, names)
		if err != nil {
			return err
		}
		if err := a.ui.confirmMany(ctx, removeQuestion(names, doomed), len(names)); err != nil {
			return err
		}
		for i, name := range names {
			if err := removeNode(ctx, a, r, name, doomed[name]); err != nil {
				if i > 0 {
					err = errors.Join(errPartial, err)
				}
				return err
			}
		}
		return nil
	})
}

// removeQuestion names the nodes, and the keys that would be removed with them.
func removeQuestion(names []string, doomed map[string]registry.SSHKey) string {
	what := "node " + fewOf(names)
	if len(names) > 1 {
		what = fmt.Sprintf("%d nodes (%s)", len(names), fewOf(names))
	}
	var keys []string
	for _, name := range names {
		if k, ok := doomed[name]; ok {
			keys = append(keys, keyName(k))
		}
	}
	switch len(keys) {
	case 0:
		return fmt.Sprintf("Remove %s?", what)
	case 1:
		return fmt.Sprintf("Remove %s, and for good the private key that no other node uses: %s? (To keep the key, assign it to another node, or first: rbee-vault ssh-key export, or rbee-vault backup)", what, keys[0])
	}
	return fmt.Sprintf("Remove %s, and for good %d private keys that no other node uses: %s? (To keep a key, assign it to another node, or first: rbee-vault ssh-key export, or rbee-vault backup)", what, len(keys), fewOf(keys))
}

// removeNode removes one node and reports it. key is the key that is removed with it, if
// any.
func removeNode(ctx context.Context, a *app, r *registry.Registry, name string, key registry.SSHKey) error {
	found, err := r.RemoveNode(ctx, name)
	if err == nil && !found {
		err = nodeHint(fmt.Errorf("remove node %q: %w", name, registry.ErrNotFound), "", nil)
	}
	if err != nil {
		return err
	}
	switch {
	case a.json:
		return a.ui.object(removedNodeJSON{name, wire.Nullable(key.Fingerprint)})
	case key.Fingerprint != "":
		a.ui.info("removed %s, and its private key %s", name, keyName(key))
	default:
		a.ui.info("removed %s", name)
	}
	return nil
}
