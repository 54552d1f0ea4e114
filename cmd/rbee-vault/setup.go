package main

import (
	"github.com/spf13/cobra"
)

// newSetup keeps the spellings that operators of the keeper know.
func newSetup(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "The keeper's spellings: add-node, list-nodes, remove-node",
	}
	var o nodeOptions
	var name string
	add := &cobra.Command{
		Use:   "add-node --name NAME",
		Short: "Add a node; see `rbee-vault node add`",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" {
				return usagef("--name is needed")
			}
			return runNodeAdd(cmd, a, &o, &keyOptions{}, name)
		},
	}
	o.register(add)
	add.Flags().StringVar(&name, "name", "", "`NAME` of the node")

	list := &cobra.Command{
		Use:   "list-nodes",
		Short: "List the nodes; see `rbee-vault node list`",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runNodeList(cmd.Context(), a, selectOptions{}, nil) },
	}

	remove := &cobra.Command{
		Use:   "remove-node --name NAME",
		Short: "Remove a node; see `rbee-vault node remove`",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" {
				return usagef("--name is needed")
			}
			return removeNodes(cmd.Context(), a, selectNode(name))
		},
	}
	remove.Flags().StringVar(&name, "name", "", "`NAME` of the node")
	cmd.AddCommand(add, list, remove)
	return cmd
}
