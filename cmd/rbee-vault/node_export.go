package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	all    bool
	agent  string
}

func (o *exportOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().StringVar(&o.format, "format", "", "`FORMAT`: ssh-config or json")
	cmd.Flags().StringVarP(&o.out, "output", "o", "-", "write to the new `FILE`, '-' for standard output; an earlier ssh_config of this command is written anew")
	cmd.Flags().BoolVar(&o.all, "all", false, "ssh-config: also write nodes that ssh cannot log in to yet")
	cmd.Flags().StringVar(&o.agent, "agent-socket", "", "ssh-config: the agent's socket `PATH` (default $XDG_RUNTIME_DIR/rbee-vault/agent.sock)")
}

func newNodeExport(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export --format ssh-config|json [NAME|GLOB...]",
		Short: "Print nodes for other tools, as ssh_config or as JSON lines",
		Long: `Print the nodes as ssh_config or as JSON lines. JSON lines are those of "node list --json".

ssh_config has an alias for each node. It takes the host keys from the vault with
KnownHostsCommand, and signatures from "rbee-vault agent". A node without a pinned host
key or an SSH key is a comment, unless --all is given.

-o writes to FILE, mode 0600, and for an ssh_config the public keys into FILE.keys. A file
that is not an earlier ssh_config of this command is never replaced. Your own
~/.ssh/config is never changed: include the file there.`,
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
	if o.format == "json" && (o.all || o.agent != "") {
		return usagef("--all and --agent-socket are for --format ssh-config")
	}
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	abs := "" // standard output
	if o.out != "-" {
		if abs, err = filepath.Abs(o.out); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	var keys map[string][]byte
	err = a.withRegistry(ctx, func(r *registry.Registry) error {
		nodes, err := selection.nodes(ctx, a, r)
		if err != nil {
			return err
		}
		if o.format == "json" {
			list, err := nodesJSON(ctx, r, nodes)
			if err != nil {
				return err
			}
			return writeJSONLines(&b, list)
		}
		keys, err = o.writeSSHConfig(ctx, r, nodes, abs, &b)
		return err
	})
	if err != nil {
		return err
	}
	if abs == "" {
		_, err := a.ui.out.Write(b.Bytes())
		return err
	}
	if err := writeExport(abs, b.Bytes(), keys, o.format == "ssh-config"); err != nil {
		return err
	}
	a.ui.printf("%s\n", abs)
	return nil
}

// writeSSHConfig writes an ssh_config that is to be at path, "" for standard output. It returns
// the public keys that go beside it, by their paths.
func (o exportOptions) writeSSHConfig(ctx context.Context, r *registry.Registry, nodes []registry.Node, path string, w io.Writer) (keys map[string][]byte, err error) {
	if nodes, err = withJumps(ctx, r, nodes); err != nil {
		return nil, err
	}
	e := sshExport{all: o.all}
	if path != "" {
		e.keysDir = path + ".keys"
	}
	hosts, err := e.hosts(ctx, r, nodes)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	opts := registry.SSHConfigOptions{KnownHostsCommand: []string{self, "--no-input", "--db", r.Vault().Path(), "host-key", "list", "--known-hosts"}}
	if opts.Agent, err = (socketOptions{o.agent}).path(); isUsage(err) { // there is no default here
		err = nil
	}
	if err == nil {
		err = registry.WriteSSHConfig(w, hosts, opts)
	}
	return e.keys, err
}

// writeExport writes the file, and the public keys that it names before it. It replaces an
// earlier ssh_config of ours.
func writeExport(path string, data []byte, keys map[string][]byte, mayReplace bool) error {
	write := vault.CreateFile
	if mayReplace && isSSHExport(path) {
		write = vault.ReplaceFile
	} else if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%w: %q", vault.ErrFileExists, path) // before the keys
	}
	if len(keys) > 0 {
		if err := os.MkdirAll(path+".keys", 0o700); err != nil {
			return err
		}
	}
	for file, line := range keys {
		// A fingerprint is in its name, so what is there is the same.
		if err := vault.CreateFile(file, line); err != nil && !errors.Is(err, vault.ErrFileExists) {
			return err
		}
	}
	return write(path, data)
}

// isSSHExport reports whether a file is an ssh_config of ours. A link is none: the file that
// it leads to would stay as it is.
func isSSHExport(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(registry.SSHConfigHeader))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == registry.SSHConfigHeader
}

// sshExport makes an ssh_config of nodes.
type sshExport struct {
	all     bool
	keysDir string            // for public keys; "": there is no place for them
	keys    map[string][]byte // the content of its files, by path
}

// hosts returns the nodes as ssh needs them. All jumps are among the nodes.
func (e *sshExport) hosts(ctx context.Context, r *registry.Registry, nodes []registry.Node) ([]registry.SSHHost, error) {
	vaultKeys, err := r.ListSSHKeys(ctx)
	if err != nil {
		return nil, err
	}
	byNode := map[string]registry.SSHKey{}
	for _, k := range vaultKeys {
		for _, node := range k.Nodes {
			byNode[node] = k
		}
	}
	allPins, err := r.ListHostKeys(ctx)
	if err != nil {
		return nil, err
	}
	pins := map[string][]registry.HostKey{}
	for _, k := range allPins {
		pins[k.Node] = append(pins[k.Node], k)
	}
	e.keys = map[string][]byte{}
	hosts := make([]registry.SSHHost, len(nodes))
	lacks := map[string]string{}
	for i, n := range nodes {
		h := registry.SSHHost{Node: n, HostKeys: pins[n.Name]}
		k, ok := byNode[n.Name]
		h.InVault = ok
		switch {
		case len(h.HostKeys) == 0:
			lacks[n.Name] = "no host key is pinned (rbee-vault check " + n.Name + ")"
		case !ok && n.SSHKeyPath == "":
			lacks[n.Name] = "it has no SSH key (rbee-vault ssh-key generate --node " + n.Name + ")"
		}
		if ok && e.keysDir != "" && (e.all || lacks[n.Name] == "") {
			h.PublicKey = filepath.Join(e.keysDir, keyFileName(k.Fingerprint))
			e.keys[h.PublicKey] = []byte(k.PublicKey + "\n")
		}
		hosts[i] = h
	}
	if e.all {
		return hosts, nil
	}
	jumps := map[string]string{}
	for _, n := range nodes {
		jumps[n.Name] = n.ProxyJump
	}
	for i, h := range hosts {
		hosts[i].Lacks = lacks[h.Name]
		for at, n := h.ProxyJump, 0; at != "" && n <= registry.MaxJumps && hosts[i].Lacks == ""; at, n = jumps[at], n+1 {
			if lacks[at] != "" {
				hosts[i].Lacks = "it is reached through " + at + ", where " + lacks[at]
			}
		}
	}
	return hosts, nil
}

// keyFileName is a file name for a public key.
func keyFileName(fingerprint string) string {
	return strings.ReplaceAll(strings.TrimPrefix(fingerprint, "SHA256:"), "/", "_") + ".pub"
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

func writeJSONLines(b *bytes.Buffer, nodes []nodeJSON) error {
	for _, n := range nodes {
		line, err := wire.Marshal(n)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	return nil
}
