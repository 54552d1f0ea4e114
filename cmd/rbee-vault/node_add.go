package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

type nodeAddOptions struct {
	nodeOptions
	keyOptions
}

func (o *nodeAddOptions) register(cmd *cobra.Command) {
	o.nodeOptions.register(cmd)
	o.keyOptions.register(cmd)
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
	f.BoolVar(&o.generate, "generate-key", false, "generate an SSH key inside the vault, and use it")
	f.StringVar(&o.use, "use-key", "", "use the vault's SSH `KEY`: a fingerprint, its beginning, or a comment")
	f.BoolVar(&o.allowWeak, "allow-weak", false, "accept an RSA key of fewer than 3072 bits")
}

func newNodeAdd(a *app) *cobra.Command {
	var o nodeAddOptions
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a node",
		Example: `  rbee-vault node add hive-01 --ssh-host hive-01.example.org --ssh-user ops --git-repo https://example.org/rbee.git --install-path /opt/rbee --backend cuda=2`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runNodeAdd(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	return cmd
}

// check returns a usage error if a flag is missing, or if there is more than one key.
func (o nodeAddOptions) check() error {
	for _, flag := range []string{"ssh-host", "ssh-user", "git-repo", "install-path"} {
		if !o.given(flag) {
			return usagef("--%s is needed", flag)
		}
	}
	var keys []string
	for _, flag := range []string{"ssh-key", "import-key", "generate-key", "use-key"} {
		if o.given(flag) {
			keys = append(keys, "--"+flag)
		}
	}
	if len(keys) > 1 {
		return usagef("a node uses one key: give one of %s", strings.Join(keys, " and "))
	}
	return nil
}

func runNodeAdd(ctx context.Context, a *app, o nodeAddOptions, name string) error {
	if err := o.check(); err != nil {
		return err
	}
	n := registry.Node{Name: name}
	if err := o.apply(&n, true); err != nil {
		return err
	}
	if err := n.Validate(); err != nil { // before anything prompts
		return err
	}
	choice := registry.KeyChoice{Generate: o.generate}
	if o.importKey != "" {
		key, err := a.readPrivateKey(ctx, o.importKey, registry.PrivateKeyOptions{AllowWeak: o.allowWeak})
		if err != nil {
			return err
		}
		defer key.Wipe()
		choice.Import = key
	}
	var fingerprint string
	err := a.withRegistry(ctx, func(r *registry.Registry) error {
		if o.use != "" {
			k, err := findSSHKey(ctx, r, o.use)
			if err != nil {
				return err
			}
			choice.Use = k.Fingerprint
		}
		var err error
		fingerprint, err = r.CreateNodeWithKey(ctx, n, choice)
		return err
	})
	if errors.Is(err, registry.ErrExists) {
		return withHint(err, "To change that node: rbee-vault node update %s ...", name)
	}
	if err != nil {
		return err
	}
	a.ui.info("added %s", name)
	if o.generate {
		a.ui.info("To print its SSH public key for authorized_keys on the node: rbee-vault ssh-key show %s", fingerprint)
	}
	return nil
}
