package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

type listOptions struct {
	selectOptions
	tableOptions
	wide bool
}

func (o *listOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	o.tableOptions.register(cmd, nodeHeaders...)
	cmd.Flags().BoolVar(&o.wide, "wide", false, "with jump and labels")
}

func newNodeList(a *app) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list [NAME|GLOB...]",
		Short: "List the nodes",
		Long: `List the nodes, sorted by name: as a table on a terminal; tab-separated in a pipe (name,
host, port, user, status, last contact, backends; with --wide, also jump and labels); as
JSON lines with --json, with the fingerprints of the vault's SSH key (ssh_key) and of the
pinned host keys (host_keys). Without a name, a glob or --where, all nodes are listed.

A condition of --where is one of these; all of them must hold:

  status=online       the status, also with !=
  backend=cuda        the node has the backend; != for nodes without it
  cuda>=2             the number of the backend's devices, with = != < <= > >=
  label.rack=3        the value of a label, or a glob (label.rack=* for any value); !=
                      holds for nodes without the label too
  seen<10m            the last contact; > for longer ago, or never`,
		Example: `  rbee-vault node list 'hive-*' --where 'status=online,cuda>=2,label.rack=3,seen<10m'`,
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return runNodeList(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runNodeList(ctx context.Context, a *app, o listOptions, args []string) error {
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	t, err := o.nodeTable()
	if err != nil {
		return err
	}
	var nodes []registry.Node
	var inJSON []nodeJSON
	err = a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		if nodes, err = selection.nodes(ctx, a, r); err == nil && a.json {
			inJSON, err = nodesJSON(ctx, r, nodes)
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return objects(a.ui, inJSON)
	}
	if len(nodes) == 0 {
		if selection.conditional {
			return nil // nodes has said that no node matches
		}
		a.ui.info("There are no nodes yet. To add one: rbee-vault node add NAME ...")
		return nil
	}
	for _, n := range nodes {
		t.row(n.Name, n.SSHHost, n.SSHPort, n.SSHUser, n.Status, n.LastConnected, backendsText(n), n.ProxyJump, registry.FormatLabels(n.Labels))
	}
	a.ui.table(t)
	return nil
}

var nodeHeaders = []string{"NAME", "HOST", "PORT", "USER", "STATUS", "LAST CONTACT", "BACKENDS", "JUMP", "LABELS"}

// nodeTable returns the table of nodes, without rows.
func (o listOptions) nodeTable() (*table, error) {
	shown := len(nodeHeaders)
	if !o.wide {
		shown -= 2
	}
	t, err := o.table(nodeHeaders[:shown], nodeHeaders[shown:]...)
	if err != nil {
		return nil, err
	}
	t.dropFirst(o.tableOptions, "PORT", "USER", "JUMP", "BACKENDS", "LABELS")
	return t, nil
}
