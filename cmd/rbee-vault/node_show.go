package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
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
		pins, err := r.ListHostKeys(ctx, namesOf(nodes)...)
		if err != nil {
			return err
		}
		for i, n := range nodes {
			k, err := keyOfNode(ctx, r, n.Name)
			if err != nil {
				return err
			}
			if i > 0 {
				a.ui.printf("\n")
			}
			a.ui.sections(nodeSections(a.now(), n, k, pins))
		}
		return nil
	})
}

// keyOfNode returns the vault's key for a node, an empty one where there is none.
func keyOfNode(ctx context.Context, r *registry.Registry, name string) (registry.SSHKey, error) {
	k, err := r.NodeSSHKey(ctx, name)
	if errors.Is(err, registry.ErrNotFound) {
		return registry.SSHKey{}, nil
	}
	return k, err
}

// nodeSections returns a node in sections: how it is reached, what lets us in, what is installed
// there, and how it is.
func nodeSections(now time.Time, n registry.Node, k registry.SSHKey, pins []registry.HostKey) []section {
	last := "never"
	if !n.LastConnected.IsZero() {
		last = fmt.Sprintf("%s (%s ago)", n.LastConnected.Format("2006-01-02 15:04:05 MST"), ago(now.Sub(n.LastConnected)))
	}
	access := [][2]string{
		{"ssh key", cmp.Or(keyName(k), "none in the vault")},
		{"ssh key path", cmp.Or(n.SSHKeyPath, "none")},
	}
	for _, pin := range pins {
		if pin.Node == n.Name {
			access = append(access, [2]string{"host key", fmt.Sprintf("%s %s, pinned %s", pin.Type, vault.Fingerprint(pin.PublicKey), pin.FirstSeen.Format(time.DateOnly))})
		}
	}
	if len(access) == 2 {
		access = append(access, [2]string{"host key", "none pinned"})
	}
	return []section{
		{"", [][2]string{
			{"name", n.Name},
			{"labels", cmp.Or(registry.FormatLabels(n.Labels), "none")},
			{"note", cmp.Or(n.Note, "none")},
		}},
		{"connection", [][2]string{
			{"ssh host", n.SSHHost},
			{"ssh port", strconv.Itoa(int(n.SSHPort))},
			{"ssh user", n.SSHUser},
			{"proxy jump", cmp.Or(n.ProxyJump, "none")},
		}},
		{"access", access},
		{"software", [][2]string{
			{"git repo", n.GitRepoURL},
			{"git branch", n.GitBranch},
			{"install path", n.InstallPath},
		}},
		{"state", [][2]string{
			{"status", string(n.Status)},
			{"last contact", last},
			{"backends", cmp.Or(backendsText(n), "unknown")},
		}},
	}
}
