package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

func newSSHKey(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh-key",
		Short: "The SSH keys in the vault",
		Long: `SSH private keys are stored in the vault, each sealed again inside the encrypted
database. Many nodes can use the same key, but each node uses only one. KEY is a
fingerprint, at least the first six characters of its hash, or the comment of the key.`,
	}
	cmd.AddCommand(
		newSSHKeyAdd(a),
		newSSHKeyGenerate(a),
		newSSHKeyList(a),
		newSSHKeyShow(a),
		newSSHKeyExport(a),
		newSSHKeyAssign(a),
		newSSHKeyInstall(a),
		newSSHKeyRotate(a),
		newSSHKeyRemove(a),
	)
	return cmd
}

func newSSHKeyList(a *app) *cobra.Command {
	var o tableOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys, and which nodes use them",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runSSHKeyList(cmd.Context(), a, o) },
	}
	o.register(cmd, sshKeyHeaders...)
	return cmd
}

var sshKeyHeaders = []string{"FINGERPRINT", "TYPE", "COMMENT", "CREATED", "USED", "NODES"}

func runSSHKeyList(ctx context.Context, a *app, o tableOptions) error {
	t, err := o.table(sshKeyHeaders)
	if err != nil {
		return err
	}
	t.dropFirst(o, "CREATED", "TYPE", "USED")
	var keys []registry.SSHKey
	err = a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		keys, err = r.ListSSHKeys(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return objects(a.ui, keys)
	}
	if len(keys) == 0 {
		a.ui.info("There are no SSH keys yet. To add one: rbee-vault ssh-key add FILE, or rbee-vault ssh-key generate")
		return nil
	}
	for _, k := range keys {
		t.row(fingerprint(k.Fingerprint), k.Type, k.Comment, day(k.Created), day(k.Used), strings.Join(k.Nodes, ","))
	}
	a.ui.table(t)
	return nil
}

// withSSHKey opens the registry, finds the key, and runs fn.
func (a *app) withSSHKey(ctx context.Context, name string, fn func(*registry.Registry, registry.SSHKey) error) error {
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		k, err := findSSHKey(ctx, r, name)
		if err != nil {
			return err
		}
		return fn(r, k)
	})
}

// findSSHKey finds a key by its fingerprint, the beginning of that, or its comment.
func findSSHKey(ctx context.Context, r *registry.Registry, name string) (registry.SSHKey, error) {
	keys, err := r.ListSSHKeys(ctx)
	if err != nil {
		return registry.SSHKey{}, err
	}
	k, err := registry.FindSSHKey(keys, name)
	if errors.Is(err, registry.ErrNotFound) {
		var names []string
		for _, k := range keys {
			names = append(names, k.Comment)
		}
		err = withSuggestion(err, name, names, "List the keys: rbee-vault ssh-key list")
	}
	return k, err
}

// keyName returns the fingerprint and the comment of a key, for a person.
func keyName(k registry.SSHKey) string { return strings.TrimSpace(k.Fingerprint + " " + k.Comment) }

func newSSHKeyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show KEY",
		Short: "Print the public key, as a line of authorized_keys",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runSSHKeyShow(cmd.Context(), a, args[0]) },
	}
}

func runSSHKeyShow(ctx context.Context, a *app, name string) error {
	return a.withSSHKey(ctx, name, func(_ *registry.Registry, k registry.SSHKey) error {
		if a.json {
			return a.ui.object(k)
		}
		a.ui.printf("%s\n", strings.TrimSpace(k.PublicKey+" "+k.Comment))
		return nil
	})
}

type assignOptions struct {
	selectOptions
	none bool
}

func (o *assignOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().BoolVar(&o.none, "none", false, "the nodes use no key in the vault any more")
}

func newSSHKeyAssign(a *app) *cobra.Command {
	var o assignOptions
	cmd := &cobra.Command{
		Use:   "assign KEY NODE|GLOB... | assign --none NODE|GLOB...",
		Short: "Let nodes use a key, in place of the one they used",
		Args:  cobra.ArbitraryArgs,
		RunE:  func(cmd *cobra.Command, args []string) error { return runSSHKeyAssign(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runSSHKeyAssign(ctx context.Context, a *app, o assignOptions, args []string) error {
	key := ""
	if !o.none {
		if len(args) == 0 {
			return usagef("which key?")
		}
		key, args = args[0], args[1:]
	}
	selection, err := o.parseSome(args)
	if err != nil {
		return err
	}
	if o.none {
		return a.withRegistry(ctx, func(r *registry.Registry) error {
			return assignSSHKey(ctx, a, r, "", selection)
		})
	}
	return a.withSSHKey(ctx, key, func(r *registry.Registry, k registry.SSHKey) error {
		return assignSSHKey(ctx, a, r, k.Fingerprint, selection)
	})
}

// assignSSHKey lets the selected nodes use a key, or none if the fingerprint is empty.
func assignSSHKey(ctx context.Context, a *app, r *registry.Registry, fingerprint string, selection nodeSelection) error {
	names, err := selection.names(ctx, a, r)
	if err != nil || len(names) == 0 {
		return err
	}
	if err := r.AssignSSHKey(ctx, fingerprint, names...); err != nil {
		return err
	}
	if a.json {
		return a.showChanged(ctx, r, "", names...)
	}
	what := fingerprint
	if fingerprint == "" {
		what = "no key in the vault any more"
	}
	a.ui.info("%s: %s", strings.Join(names, ", "), what)
	return nil
}

type keyRemoveOptions struct {
	unassign bool
}

func (o *keyRemoveOptions) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.unassign, "unassign", false, "remove it even if nodes use it; they then have no key in the vault")
}

// removedKeyJSON is a removed key, and the nodes that used it.
type removedKeyJSON struct {
	Removed    string   `json:"removed"`
	Unassigned []string `json:"unassigned"`
}

func newSSHKeyRemove(a *app) *cobra.Command {
	var o keyRemoveOptions
	cmd := &cobra.Command{
		Use:   "remove KEY",
		Short: "Remove a key from the vault",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runSSHKeyRemove(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	return cmd
}

func runSSHKeyRemove(ctx context.Context, a *app, o keyRemoveOptions, name string) error {
	return a.withSSHKey(ctx, name, func(r *registry.Registry, k registry.SSHKey) error {
		if len(k.Nodes) > 0 && !o.unassign {
			return withHint(fmt.Errorf("SSH key %q: %w by %s", k.Fingerprint, registry.ErrInUse, strings.Join(k.Nodes, ", ")),
				"Let them use another key: rbee-vault ssh-key assign KEY NODE. Or leave them without a key: --unassign")
		}
		if err := a.ui.confirm(ctx, fmt.Sprintf("Remove %s for good?", keyName(k))); err != nil {
			return err
		}
		if err := r.RemoveSSHKey(ctx, k.Fingerprint, o.unassign); err != nil {
			return err
		}
		if a.json {
			return a.ui.object(removedKeyJSON{k.Fingerprint, notNil(k.Nodes)})
		}
		a.ui.info("removed %s", k.Fingerprint)
		return nil
	})
}
