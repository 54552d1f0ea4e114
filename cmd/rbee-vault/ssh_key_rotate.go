package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
)

type keyRotateOptions struct {
	selectOptions
	all      bool
	parallel int
	noBackup bool
	dryRun   bool
}

func (o *keyRotateOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "every node that uses a key in the vault")
	cmd.Flags().IntVar(&o.parallel, "parallel", 16, "work on `N` nodes at once")
	cmd.Flags().BoolVar(&o.noBackup, "no-backup", false, "remove the old keys without a backup that has the new ones")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "print what would be done, and do nothing")
}

func newSSHKeyRotate(a *app) *cobra.Command {
	var o keyRotateOptions
	cmd := &cobra.Command{
		Use:   "rotate NODE|GLOB... | rotate --all",
		Short: "Replace the SSH keys of nodes, in the vault and on the nodes",
		Long: `Replace the SSH key of each node by a new ed25519 key of its own:

  1. The new key is made in the vault.
  2. Its line is added to authorized_keys on the node, with the options of the old key's line.
  3. A login proves the new key, and the vault uses it from then on.
  4. A backup with the new keys is made: one for all nodes (--no-backup: none).
  5. The old key's line is removed, by a login with the new key. Further logins prove that
     the node accepts the new key and refuses the old one.
  6. The old key is removed from the vault, unless other nodes use it.

The vault records how far each node has come, so that the command goes on from there when
it is run again. At every moment the vault has a key that the node accepts. If a node could
not be done, the exit code is 3.`,
		Example: `  rbee-vault ssh-key rotate hive-03
  rbee-vault ssh-key rotate --all --dry-run`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runSSHKeyRotate(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

// parse parses the flags and the arguments.
func (o keyRotateOptions) parse(args []string) (nodeSelection, error) {
	if o.parallel < 1 {
		return nodeSelection{}, usagef("--parallel must be at least 1")
	}
	if !o.all {
		return o.parseSome(args)
	}
	if len(args) > 0 || o.where != "" {
		return nodeSelection{}, usagef("give nodes or --all, not both")
	}
	return o.selectOptions.parse(nil)
}

func runSSHKeyRotate(ctx context.Context, a *app, o keyRotateOptions, args []string) error {
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		names, err := selection.names(ctx, a, r)
		if err != nil {
			return err
		}
		keys, err := r.ListSSHKeys(ctx)
		if err != nil {
			return err
		}
		if o.all {
			names = slices.DeleteFunc(names, func(name string) bool { return keyOf(keys, name) == nil })
			if len(names) == 0 {
				a.ui.info("No node uses a key in the vault.")
			}
		}
		if o.dryRun {
			return a.planKeyRotation(ctx, r, keys, names)
		}
		hosts := newNodeKeys(r)
		defer hosts.close()
		k := keyRotator{
			store:    r,
			hosts:    hosts,
			parallel: o.parallel,
			report:   a.reportKeyRotation,
		}
		if !o.noBackup {
			k.backup = func(ctx context.Context) error { return a.backupNewKeys(ctx, r) }
		}
		failed, err := k.run(ctx, names)
		if err != nil {
			return err
		}
		a.reportOldKeys(k.shared)
		if failed > 0 {
			return fmt.Errorf("%w: the keys of %d of %d nodes are not replaced", errPartial, failed, len(names))
		}
		return nil
	})
}

// keyOf returns the key that a node uses, or nil.
func keyOf(keys []registry.SSHKey, node string) *registry.SSHKey {
	for i, k := range keys {
		if slices.Contains(k.Nodes, node) {
			return &keys[i]
		}
	}
	return nil
}

// backupNewKeys makes a backup where the command backup makes it.
func (a *app) backupNewKeys(ctx context.Context, r *registry.Registry) error {
	opts, err := a.createOptions(ctx, r.Vault(), backupOptions{})
	if err != nil {
		return err
	}
	created, err := backup.Create(ctx, r.Vault(), opts)
	if err != nil {
		return err
	}
	a.ui.info("The new keys are in the backup %s.", created.Copies[0])
	return nil
}
