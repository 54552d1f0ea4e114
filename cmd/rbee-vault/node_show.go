package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

func newNodeShow(a *app) *cobra.Command {
	var o selectOptions
	cmd := &cobra.Command{
		Use:   "show NAME|GLOB...",
		Short: "Show all fields of nodes",
		Args:  cobra.ArbitraryArgs,
		RunE:  func(cmd *cobra.Command, args []string) error { return runNodeShow(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runNodeShow(ctx context.Context, a *app, o selectOptions, args []string) error {
	selection, err := o.parseSome(args)
	if err != nil {
		return err
	}
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		nodes, err := selection.nodes(ctx, a, r)
		if err != nil {
			return err
		}
		if a.json {
			list, err := nodesJSON(ctx, r, nodes)
			if err != nil {
				return err
			}
			return objects(a.ui, list)
		}
		for i, n := range nodes {
			k, err := r.NodeSSHKey(ctx, n.Name)
			if err != nil && !errors.Is(err, registry.ErrNotFound) {
				return err
			}
			if i > 0 {
				a.ui.printf("\n")
			}
			showNode(a, n, k)
		}
		return nil
	})
}

func showNode(a *app, n registry.Node, k registry.SSHKey) {
	last := "never"
	if !n.LastConnected.IsZero() {
		last = fmt.Sprintf("%s (%s ago)", n.LastConnected.Format("2006-01-02 15:04:05 MST"), ago(a.now().Sub(n.LastConnected)))
	}
	a.ui.pairs([][2]string{
		{"name", n.Name},
		{"ssh host", n.SSHHost},
		{"ssh port", strconv.Itoa(int(n.SSHPort))},
		{"ssh user", n.SSHUser},
		{"ssh key path", cmp.Or(n.SSHKeyPath, "none")},
		{"ssh key", cmp.Or(keyName(k), "none in the vault")},
		{"proxy jump", cmp.Or(n.ProxyJump, "none")},
		{"git repo", n.GitRepoURL},
		{"git branch", n.GitBranch},
		{"install path", n.InstallPath},
		{"last contact", last},
		{"status", string(n.Status)},
		{"backends", cmp.Or(backendsText(n), "unknown")},
		{"labels", cmp.Or(registry.FormatLabels(n.Labels), "none")},
		{"note", cmp.Or(n.Note, "none")},
	})
}
