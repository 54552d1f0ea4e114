package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

func newNode(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "The machines of the fleet"}
	cmd.AddCommand(
		newNodeAdd(a),
		newNodeList(a),
		newNodeShow(a),
		newNodeUpdate(a),
		newNodeRename(a),
		newNodeRemove(a),
		newNodeImport(a),
		newNodeExport(a),
	)
	return cmd
}

// nodeOptions are the flags that describe a node.
type nodeOptions struct {
	sshHost     string
	sshPort     uint16
	sshUser     string
	sshKey      string
	gitRepo     string
	gitBranch   string
	installPath string
	backends    []string
}

func (o *nodeOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.sshHost, "ssh-host", "", "`HOST` name or address")
	f.Uint16Var(&o.sshPort, "ssh-port", registry.DefaultSSHPort, "SSH `PORT`")
	f.StringVar(&o.sshUser, "ssh-user", "", "SSH `USER`")
	f.StringVar(&o.sshKey, "ssh-key", "", "`PATH` of the SSH private key on this machine")
	f.StringVar(&o.gitRepo, "git-repo", "", "`URL` to install from")
	f.StringVar(&o.gitBranch, "git-branch", "main", "`BRANCH` to install")
	f.StringVar(&o.installPath, "install-path", "", "`PATH` to install at, on the node")
	f.StringArrayVar(&o.backends, "backend", nil, "what it computes with: `NAME[=DEVICES]`, such as cuda=2 or cpu; repeatable")
}

// apply writes the flags that were given, or all with defaults for a new node.
func (o *nodeOptions) apply(cmd *cobra.Command, n *registry.Node, all bool) error {
	given := func(flag string) bool { return all || cmd.Flags().Changed(flag) }
	if given("ssh-host") {
		n.SSHHost = o.sshHost
	}
	if given("ssh-port") {
		n.SSHPort = o.sshPort
	}
	if given("ssh-user") {
		n.SSHUser = o.sshUser
	}
	if given("ssh-key") {
		path, err := expandKeyPath(o.sshKey)
		if err != nil {
			return err
		}
		n.SSHKeyPath = path
	}
	if given("git-repo") {
		n.GitRepoURL = o.gitRepo
	}
	if given("git-branch") {
		n.GitBranch = o.gitBranch
	}
	if given("install-path") {
		n.InstallPath = o.installPath
	}
	if given("backend") {
		var err error
		if n.Backends, n.Devices, err = parseBackends(o.backends); err != nil {
			return err
		}
	}
	return nil
}

// expandKeyPath makes the path of a key on this machine absolute.
func expandKeyPath(path string) (string, error) {
	home, _ := os.UserHomeDir()
	path = registry.ExpandPath(home, path)
	if path != "" && !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "-") && !strings.HasPrefix(path, "~") {
		wd, err := os.Getwd()
		if err != nil {
			return "", err
		}
		path = wd + "/" + path
	}
	return path, nil
}

// parseBackends parses NAME or NAME=DEVICES; a single empty one says that
// nothing is known.
func parseBackends(flags []string) (backends []string, devices map[string]uint32, err error) {
	if len(flags) == 0 || (len(flags) == 1 && flags[0] == "") {
		return nil, nil, nil
	}
	for _, flag := range flags {
		name, count, counted := strings.Cut(flag, "=")
		if slices.Contains(backends, name) {
			return nil, nil, &registry.FieldError{Field: "backends", Rule: fmt.Sprintf("has %s twice", strconv.Quote(name))}
		}
		backends = append(backends, name)
		if !counted {
			continue
		}
		n, err := strconv.ParseUint(count, 10, 32)
		if err != nil {
			return nil, nil, &registry.FieldError{Field: "devices", Rule: "must be whole numbers from 0 to 4294967295, as in cuda=2"}
		}
		if devices == nil {
			devices = map[string]uint32{}
		}
		devices[name] = uint32(n)
	}
	return backends, devices, nil
}

// keyOptions are the flags that give a new node an SSH key of the vault.
type keyOptions struct {
	importKey string
	generate  bool
	use       string
	allowWeak bool
}

func (o *keyOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.importKey, "import-key", "", "seal the SSH private key in `FILE` into the vault, and use it")
	f.BoolVar(&o.generate, "generate-key", false, "make an SSH key inside the vault, and use it")
	f.StringVar(&o.use, "use-key", "", "use the vault's SSH `KEY`: a fingerprint, its beginning, or a comment")
	f.BoolVar(&o.allowWeak, "allow-weak", false, "take an RSA key of fewer than 3072 bits")
}

func newNodeAdd(a *app) *cobra.Command {
	var o nodeOptions
	var k keyOptions
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a node",
		Example: `  rbee-vault node add hive-01 --ssh-host hive-01.example.org --ssh-user ops --git-repo https://example.org/rbee.git --install-path /opt/rbee --backend cuda=2`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runNodeAdd(cmd, a, &o, &k, args[0]) },
	}
	o.register(cmd)
	k.register(cmd)
	return cmd
}

func runNodeAdd(cmd *cobra.Command, a *app, o *nodeOptions, k *keyOptions, name string) error {
	ctx := cmd.Context()
	for _, flag := range []string{"ssh-host", "ssh-user", "git-repo", "install-path"} {
		if !cmd.Flags().Changed(flag) {
			return usagef("--%s is needed", flag)
		}
	}
	var keys []string
	for _, flag := range []string{"ssh-key", "import-key", "generate-key", "use-key"} {
		if f := cmd.Flags().Lookup(flag); f != nil && f.Changed {
			keys = append(keys, "--"+flag)
		}
	}
	if len(keys) > 1 {
		return usagef("a node uses one key: give one of %s", strings.Join(keys, " and "))
	}
	n := registry.Node{Name: name}
	if err := o.apply(cmd, &n, true); err != nil {
		return err
	}
	if err := n.Validate(); err != nil { // before the keyring is asked for anything
		return err
	}
	choice := registry.KeyChoice{Generate: k.generate}
	if k.importKey != "" {
		key, err := a.readPrivateKey(ctx, k.importKey, registry.PrivateKeyOptions{AllowWeak: k.allowWeak})
		if err != nil {
			return err
		}
		defer key.Wipe()
		choice.Import = key
	}
	var fingerprint string
	err := a.withRegistry(ctx, func(r *registry.Registry) error {
		if k.use != "" {
			keys, err := r.ListSSHKeys(ctx)
			if err != nil {
				return err
			}
			found, err := registry.FindSSHKey(keys, k.use)
			if err != nil {
				return withHint(err, "See which there are: rbee-vault ssh-key list")
			}
			choice.Use = found.Fingerprint
		}
		var err error
		fingerprint, err = r.CreateNodeWithKey(ctx, n, choice)
		return err
	})
	if errors.Is(err, registry.ErrExists) {
		return withHint(err, "Change it instead: rbee-vault node update %s ...", name)
	}
	if err != nil {
		return err
	}
	a.ui.info("added %s", name)
	if k.generate {
		a.ui.info("Its SSH public key, for the node's authorized_keys: rbee-vault ssh-key show %s", fingerprint)
	}
	return nil
}

func newNodeShow(a *app) *cobra.Command {
	var o selectOptions
	cmd := &cobra.Command{
		Use:   "show NAME|GLOB...",
		Short: "Show nodes, one after the other",
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
			return objects(a.ui, nodes)
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
	or := func(s, absent string) string {
		if s == "" {
			return absent
		}
		return s
	}
	last := "never"
	if !n.LastConnected.IsZero() {
		last = fmt.Sprintf("%s (%s ago)", n.LastConnected.Format("2006-01-02 15:04:05 MST"), ago(a.now().Sub(n.LastConnected)))
	}
	a.ui.pairs([][2]string{
		{"name", n.Name},
		{"ssh host", n.SSHHost},
		{"ssh port", strconv.Itoa(int(n.SSHPort))},
		{"ssh user", n.SSHUser},
		{"ssh key path", or(n.SSHKeyPath, "none")},
		{"ssh key", or(strings.TrimSpace(k.Fingerprint+" "+k.Comment), "none in the vault")},
		{"git repo", n.GitRepoURL},
		{"git branch", n.GitBranch},
		{"install path", n.InstallPath},
		{"last contact", last},
		{"status", string(n.Status)},
		{"backends", or(backendsText(n), "unknown")},
	})
}

// backendsText gives backends and devices as --backend takes them.
func backendsText(n registry.Node) string {
	if n.Backends != nil && len(n.Backends) == 0 && len(n.Devices) == 0 {
		return "none"
	}
	names := slices.Clone(n.Backends)
	for name := range n.Devices {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		if count, ok := n.Devices[name]; ok {
			names[i] = fmt.Sprintf("%s=%d", name, count)
		}
	}
	return strings.Join(names, ",")
}

func newNodeUpdate(a *app) *cobra.Command {
	var o nodeOptions
	var which selectOptions
	cmd := &cobra.Command{
		Use:   "update NAME|GLOB...",
		Short: "Change nodes",
		Long: `Change what the flags name, and keep the rest. --ssh-key '' takes the path away,
--backend '' says that the backends are unknown. Several nodes are changed all or
none.`,
		Example: `  rbee-vault node update 'hive-*' --git-branch stable`,
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return runNodeUpdate(cmd, a, &o, which, args) },
	}
	o.register(cmd)
	which.register(cmd)
	return cmd
}

func runNodeUpdate(cmd *cobra.Command, a *app, o *nodeOptions, which selectOptions, args []string) error {
	selection, err := which.parseSome(args)
	if err != nil {
		return err
	}
	if !anyChanged(cmd) {
		return usagef("nothing to change: give a flag")
	}
	return a.withRegistry(cmd.Context(), func(r *registry.Registry) error {
		names, err := selection.names(cmd.Context(), a, r)
		if err != nil || len(names) == 0 {
			return err
		}
		err = r.UpdateNodes(cmd.Context(), names, func(n *registry.Node) error { return o.apply(cmd, n, false) })
		if err != nil {
			return nodeHint(err)
		}
		for _, name := range names {
			a.ui.info("updated %s", name)
		}
		return nil
	})
}

// anyChanged reports whether a flag of the node's was given.
func anyChanged(cmd *cobra.Command) bool {
	for _, flag := range []string{"ssh-host", "ssh-port", "ssh-user", "ssh-key", "git-repo", "git-branch", "install-path", "backend"} {
		if cmd.Flags().Changed(flag) {
			return true
		}
	}
	return false
}

func newNodeRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rename NAME NEW-NAME",
		Short: "Give a node another name",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.withRegistry(cmd.Context(), func(r *registry.Registry) error {
				return r.RenameNode(cmd.Context(), args[0], args[1])
			})
			if err != nil {
				return nodeHint(err)
			}
			a.ui.info("renamed %s to %s", args[0], args[1])
			return nil
		},
	}
}

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

// doomedKeys are the SSH keys that go with the nodes: no other node uses them. By the
// name of the last of their nodes.
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

// keyName names an SSH key for a person.
func keyName(k registry.SSHKey) string { return strings.TrimSpace(k.Fingerprint + " " + k.Comment) }

// removedNodeJSON is what became of a node, and of the key that only it used.
type removedNodeJSON struct {
	Removed string  `json:"removed"`
	SSHKey  *string `json:"removed_ssh_key"`
}

// removeNodes asks, and removes all of the nodes; a name that is not there is
// found out before anything is asked or removed.
func removeNodes(ctx context.Context, a *app, selection nodeSelection) error {
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		names, err := selection.removable(ctx, a, r)
		if err != nil || len(names) == 0 {
			return err
		}
		doomed, err := doomedKeys(ctx, r, names)
		if err != nil {
			return err
		}
		what := "node " + strings.Join(names, ", ")
		if len(names) > 1 {
			what = fmt.Sprintf("%d nodes (%s)", len(names), strings.Join(names, ", "))
		}
		question := fmt.Sprintf("Remove %s?", what)
		if len(doomed) > 0 {
			var keys []string
			for _, name := range names {
				if k, ok := doomed[name]; ok {
					keys = append(keys, keyName(k))
				}
			}
			question = fmt.Sprintf("Remove %s, and for good the private key that no other node uses: %s? (To keep it: rbee-vault ssh-key export, or assign it to another node.)", what, strings.Join(keys, ", "))
		}
		if err := a.ui.confirm(ctx, question); err != nil {
			return err
		}
		for i, name := range names {
			found, err := r.RemoveNode(ctx, name)
			if err == nil && !found {
				err = nodeHint(fmt.Errorf("remove node %q: %w", name, registry.ErrNotFound))
			}
			if err != nil && i > 0 {
				return errors.Join(errPartial, err)
			} else if err != nil {
				return err
			}
			removed := removedNodeJSON{Removed: name}
			k, gone := doomed[name]
			if gone {
				removed.SSHKey = &k.Fingerprint
			}
			switch {
			case a.json:
				if err := a.ui.object(removed); err != nil {
					return err
				}
			case gone:
				a.ui.info("removed %s, and its private key %s", name, keyName(k))
			default:
				a.ui.info("removed %s", name)
			}
		}
		return nil
	})
}
