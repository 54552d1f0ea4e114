package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type exportOptions struct {
	selectOptions
	format string
	out    string
}

func (o *exportOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().StringVar(&o.format, "format", "", "`FORMAT`: ssh-config or json")
	cmd.Flags().StringVarP(&o.out, "output", "o", "-", "write to the new `FILE`, '-' for standard output")
}

func newNodeExport(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export --format ssh-config|json [NAME|GLOB...]",
		Short: "Print nodes for other tools, as ssh_config or as JSON lines",
		Long: `Print the nodes as ssh_config or as JSON lines. ssh_config has an alias for each node,
and takes the host keys from the vault with KnownHostsCommand. JSON lines are those of
"node list --json". In ssh_config, a node's jump is an alias too: the nodes that the
selected ones are reached through are printed with them.

-o writes to the new file FILE, mode 0600. Your own ~/.ssh/config is never changed:
include the file there.`,
		Example: `  rbee-vault node export --format ssh-config -o ~/.ssh/rbee.conf    # and at the top of ~/.ssh/config: Include rbee.conf`,
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return runNodeExport(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runNodeExport(ctx context.Context, a *app, o exportOptions, args []string) error {
	if o.format != "ssh-config" && o.format != "json" {
		return usagef("--format must be ssh-config or json")
	}
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	err = a.withRegistry(ctx, func(r *registry.Registry) error {
		nodes, err := selection.nodes(ctx, a, r)
		if err != nil {
			return err
		}
		if o.format == "json" {
			return writeJSONLines(&b, nodes)
		}
		if nodes, err = withJumps(ctx, r, nodes); err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return registry.WriteSSHConfig(&b, nodes, []string{self, "--no-input", "--db", r.Vault().Path(), "host-key", "list", "--known-hosts"})
	})
	if err != nil {
		return err
	}
	if o.out == "-" {
		_, err := a.ui.out.Write(b.Bytes())
		return err
	}
	abs, err := filepath.Abs(o.out)
	if err != nil {
		return err
	}
	if err := vault.CreateFile(abs, b.Bytes()); err != nil {
		return err
	}
	a.ui.printf("%s\n", abs)
	return nil
}

// withJumps adds the nodes that the nodes are reached through, and sorts all by name.
func withJumps(ctx context.Context, r *registry.Registry, nodes []registry.Node) ([]registry.Node, error) {
	have := map[string]bool{}
	for _, n := range nodes {
		have[n.Name] = true
	}
	for i := 0; i < len(nodes); i++ { // those that are added have jumps of their own
		jump := nodes[i].ProxyJump
		if jump == "" || have[jump] {
			continue
		}
		have[jump] = true
		n, err := r.GetNode(ctx, jump)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b registry.Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, nil
}

func writeJSONLines(b *bytes.Buffer, nodes []registry.Node) error {
	for _, n := range nodes {
		line, err := wire.Marshal(n)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	return nil
}
