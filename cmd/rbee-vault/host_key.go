package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newHostKey(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "host-key", Short: "The pinned host keys of the nodes"}
	cmd.AddCommand(newHostKeyList(a), newHostKeyScan(a), newHostKeyTrust(a), newHostKeyForget(a))
	return cmd
}

type hostKeyListOptions struct {
	selectOptions
	tableOptions
	knownHosts bool
}

func (o *hostKeyListOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	o.tableOptions.register(cmd, hostKeyHeaders...)
	cmd.Flags().BoolVar(&o.knownHosts, "known-hosts", false, "print the host keys of all nodes in the known_hosts format of OpenSSH")
}

func newHostKeyList(a *app) *cobra.Command {
	var o hostKeyListOptions
	cmd := &cobra.Command{
		Use:   "list [NODE|GLOB...]",
		Short: "List the pinned host keys",
		Long: `List the pinned host keys. --known-hosts prints the host keys of all nodes in the format
of OpenSSH, for: ssh -o KnownHostsCommand='/usr/bin/rbee-vault host-key list --known-hosts' ...`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runHostKeyList(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

var hostKeyHeaders = []string{"NODE", "TYPE", "FINGERPRINT", "FIRST SEEN", "LAST SEEN"}

func runHostKeyList(ctx context.Context, a *app, o hostKeyListOptions, args []string) error {
	if o.knownHosts {
		if len(args) > 0 || o.where != "" {
			return usagef("--known-hosts prints the host keys of all nodes: give no node and no --where")
		}
		return a.withVault(ctx, func(v *vault.Vault) error {
			return v.View(ctx, func(tx *vault.Tx) error { return registry.WriteKnownHosts(ctx, tx, a.ui.out) })
		})
	}
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	t, err := o.table(hostKeyHeaders)
	if err != nil {
		return err
	}
	t.dropFirst(o.tableOptions, "FIRST SEEN", "TYPE")
	var names []string
	var keys []registry.HostKey
	err = a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		names, err = selection.names(ctx, a, r)
		if err == nil && len(names) > 0 {
			keys, err = r.ListHostKeys(ctx, names...)
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return objects(a.ui, keys)
	}
	if len(names) == 0 && selection.conditional {
		return nil // names has said that no node matches
	}
	if len(keys) == 0 {
		a.ui.info("No host key is pinned. To pin one: rbee-vault host-key trust NODE --fingerprint SHA256:...")
		return nil
	}
	for _, k := range keys {
		t.row(k.Node, k.Type, fingerprint(vault.Fingerprint(k.PublicKey)), day(k.FirstSeen), day(k.LastSeen))
	}
	a.ui.table(t)
	return nil
}

type forgetOptions struct {
	selectOptions
	fingerprint string
}

func (o *forgetOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().StringVar(&o.fingerprint, "fingerprint", "", "only the host key with this `FINGERPRINT`")
}

func newHostKeyForget(a *app) *cobra.Command {
	var o forgetOptions
	cmd := &cobra.Command{
		Use:   "forget NODE|GLOB...",
		Short: "Remove the pinned host keys of nodes",
		Args:  cobra.ArbitraryArgs,
		RunE:  func(cmd *cobra.Command, args []string) error { return runHostKeyForget(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runHostKeyForget(ctx context.Context, a *app, o forgetOptions, args []string) error {
	selection, err := o.parseSome(args)
	if err != nil {
		return err
	}
	what := "all pinned host keys"
	if o.fingerprint != "" {
		what = o.fingerprint
	}
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		names, err := selection.names(ctx, a, r)
		if err != nil || len(names) == 0 {
			return err
		}
		if err := a.ui.confirmMany(ctx, fmt.Sprintf("Forget %s of %s?", what, fewOf(names)), len(names)); err != nil {
			return err
		}
		gone, err := r.ForgetHostKeys(ctx, o.fingerprint, names...)
		if err != nil {
			return err
		}
		if a.json {
			return changed(a.ui, gone)
		}
		a.ui.info("%d host keys forgotten", len(gone))
		return nil
	})
}
