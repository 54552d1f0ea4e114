package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

type listOptions struct {
	selectOptions
	wide bool
}

func (o *listOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
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
	headers := []string{"NAME", "HOST", "PORT", "USER", "STATUS", "LAST CONTACT", "BACKENDS"}
	if o.wide {
		headers = append(headers, "JUMP", "LABELS")
	}
	var rows [][]string
	for _, n := range nodes {
		row := nodeRow(a, n)
		if o.wide {
			row = append(row, cmp.Or(n.ProxyJump, "-"), cmp.Or(registry.FormatLabels(n.Labels), "-"))
		}
		rows = append(rows, row)
	}
	a.ui.table(headers, rows, func(row, col int) lipgloss.Style {
		if col == 4 {
			return statusStyle(nodes[row].Status)
		}
		return lipgloss.NewStyle()
	})
	return nil
}

// nodeRow returns the cells of a node: for a person on a terminal, for a program in a pipe.
func nodeRow(a *app, n registry.Node) []string {
	last := "-"
	switch {
	case n.LastConnected.IsZero() && a.ui.pretty:
		last = "never"
	case n.LastConnected.IsZero():
	case a.ui.pretty:
		last = ago(a.now().Sub(n.LastConnected))
	default:
		last = n.LastConnected.Format(time.RFC3339)
	}
	return []string{n.Name, n.SSHHost, strconv.Itoa(int(n.SSHPort)), n.SSHUser, string(n.Status), last, cmp.Or(backendsText(n), "-")}
}

func statusStyle(s registry.Status) lipgloss.Style {
	switch s {
	case registry.StatusOnline:
		return green
	case registry.StatusOffline:
		return yellow
	case registry.StatusError:
		return red
	case registry.StatusUnknown:
		return faint
	}
	return lipgloss.NewStyle()
}

// ago returns a duration in the form for a person: 5m, 36h, 3d.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
