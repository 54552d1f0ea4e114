package main

import (
	"context"

	"github.com/spf13/cobra"
)

// newSetup has the command names that operators know from rbee-keeper.
func newSetup(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "The same commands under the names in rbee-keeper: add-node, list-nodes, remove-node",
	}
	cmd.AddCommand(newSetupAdd(a), newSetupList(a), newSetupRemove(a))
	return cmd
}

func newSetupAdd(a *app) *cobra.Command {
	var o nodeAddOptions
	var name string
	cmd := &cobra.Command{
		Use:   "add-node --name NAME",
		Short: "Add a node; see `rbee-vault node add`",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runSetupAdd(cmd.Context(), a, o, name) },
	}
	o.nodeOptions.register(cmd) // rbee-keeper has no flags for keys in the vault
	nameFlag(cmd, &name)
	return cmd
}

func nameFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", "", "`NAME` of the node")
}

func runSetupAdd(ctx context.Context, a *app, o nodeAddOptions, name string) error {
	if name == "" {
		return usagef("--name is needed")
	}
	return runNodeAdd(ctx, a, o, name)
}

func newSetupList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list-nodes",
		Short: "List the nodes; see `rbee-vault node list`",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runNodeList(cmd.Context(), a, listOptions{}, nil) },
	}
}

func newSetupRemove(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "remove-node --name NAME",
		Short: "Remove a node; see `rbee-vault node remove`",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runSetupRemove(cmd.Context(), a, name) },
	}
	nameFlag(cmd, &name)
	return cmd
}

func runSetupRemove(ctx context.Context, a *app, name string) error {
	if name == "" {
		return usagef("--name is needed")
	}
	return removeNodes(ctx, a, selectNode(name))
}
