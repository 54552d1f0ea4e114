package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

type nodeUpdateOptions struct {
	selectOptions
	nodeOptions
}

func (o *nodeUpdateOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	o.nodeOptions.register(cmd)
}

func newNodeUpdate(a *app) *cobra.Command {
	var o nodeUpdateOptions
	cmd := &cobra.Command{
		Use:   "update NAME|GLOB...",
		Short: "Change nodes",
		Long: `Change the fields that the flags name, and keep the others. --ssh-key '' removes the
path; --backend '' makes the backends unknown; --jump '' and --note '' remove those.
--label sets a label, or with KEY- removes it; the other labels stay. If one of several
nodes cannot be changed, none is.`,
		Example: `  rbee-vault node update 'hive-*' --git-branch stable`,
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return runNodeUpdate(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runNodeUpdate(ctx context.Context, a *app, o nodeUpdateOptions, args []string) error {
	selection, err := o.parseSome(args)
	if err != nil {
		return err
	}
	if !o.anyGiven() {
		return usagef("nothing to change: give the flag of a field")
	}
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		names, err := selection.names(ctx, a, r)
		if err != nil || len(names) == 0 {
			return err
		}
		err = r.UpdateNodes(ctx, names, func(n *registry.Node) error { return o.apply(n, false) })
		if err != nil {
			return nodeHint(err, "", nil)
		}
		return a.showChanged(ctx, r, "updated", names...)
	})
}

func newNodeRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rename NAME NEW-NAME",
		Short: "Give a node another name",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runNodeRename(cmd.Context(), a, args[0], args[1])
		},
	}
}

func runNodeRename(ctx context.Context, a *app, name, newName string) error {
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		if err := r.RenameNode(ctx, name, newName); err != nil {
			return noNode(ctx, r, name, err)
		}
		return a.showChanged(ctx, r, fmt.Sprintf("renamed %s to", name), newName)
	})
}
