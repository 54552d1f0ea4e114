package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type trustOptions struct {
	selectOptions
	fingerprint string
	knownHosts  string   // path of a known_hosts file
	replaces    []string // fingerprints of pinned keys
}

func (o *trustOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().StringVar(&o.fingerprint, "fingerprint", "", "pin the key with this `FINGERPRINT`")
	cmd.Flags().StringVar(&o.knownHosts, "from-known-hosts", "", "pin the host keys in this known_hosts `FILE`")
	cmd.Flags().StringArrayVar(&o.replaces, "replace", nil, "replace the pinned key that has this `FINGERPRINT`; repeatable")
}

func newHostKeyTrust(a *app) *cobra.Command {
	var o trustOptions
	cmd := &cobra.Command{
		Use:   "trust NODE --fingerprint SHA256:... | trust [NODE|GLOB...] --from-known-hosts FILE",
		Short: "Pin a node's host key",
		Long: `With --fingerprint, connect to the node and pin the host key that has this fingerprint.
Get the fingerprint on the node itself:
ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub

With --from-known-hosts, pin the keys that an OpenSSH known_hosts file has for the
selected nodes, or for all nodes.

If another key of the same type is pinned, nothing is changed (exit 18), unless
--replace names that key.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runHostKeyTrust(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runHostKeyTrust(ctx context.Context, a *app, o trustOptions, args []string) error {
	switch {
	case (o.fingerprint == "") == (o.knownHosts == ""):
		return usagef("give --fingerprint or --from-known-hosts")
	case o.knownHosts != "":
		return trustKnownHosts(ctx, a, o, args)
	case len(args) != 1 || o.where != "":
		return usagef("which node?")
	}
	if _, err := checkFingerprint(o.fingerprint); err != nil {
		return err
	}
	return trustFingerprint(ctx, a, o, args[0])
}

func trustFingerprint(ctx context.Context, a *app, o trustOptions, name string) error {
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		if _, err := r.GetNode(ctx, name); err != nil {
			return noNode(ctx, r, name, err)
		}
		key, err := seeHostKey(ctx, r, name, o.fingerprint)
		if err != nil {
			return err
		}
		if _, err := r.TrustHostKey(ctx, name, key, o.replaces...); err != nil {
			return hostKeyHint(err)
		}
		if a.json {
			return showPins(ctx, a, r, map[string][]ssh.PublicKey{name: {key}})
		}
		a.ui.info("%s: %s %s is pinned", name, key.Type(), o.fingerprint)
		return nil
	})
}

// seeHostKey returns the host key of the node that has that fingerprint. It does not log in
// to the node.
func seeHostKey(ctx context.Context, r *registry.Registry, name, fingerprint string) (ssh.PublicKey, error) {
	keys, err := (&hive.Dialer{Registry: r}).HostKeys(ctx, name)
	if err != nil {
		failed := scanned{node: name, err: err}
		return nil, withHint(err, "%s", failed.hint())
	}
	var seen []string
	for _, key := range keys {
		if ssh.FingerprintSHA256(key) == fingerprint {
			return key, nil
		}
		seen = append(seen, key.Type()+" "+ssh.FingerprintSHA256(key))
	}
	return nil, withHint(fmt.Errorf("%w: node %q shows no host key with that fingerprint, but %s", registry.ErrHostKeyChanged, name, cmp.Or(strings.Join(seen, ", "), "none")),
		"Check the fingerprint on the node itself, not over this network: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
}

// maxKnownHosts caps a known_hosts file, in bytes.
const maxKnownHosts = 64 << 20

func trustKnownHosts(ctx context.Context, a *app, o trustOptions, args []string) error {
	file := o.knownHosts
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	in, err := openInput(ctx, file) // a pipe is read before the vault is opened
	if err != nil {
		return err
	}
	defer in.Close()
	content, err := readInput(in, maxKnownHosts)
	if err != nil {
		return fmt.Errorf("known_hosts file %q: %w", file, err)
	}
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		nodes, err := selection.nodes(ctx, a, r)
		if err != nil {
			return err
		}
		known, err := registry.ReadKnownHosts(bytes.NewReader(content), nodes)
		if err != nil {
			return fmt.Errorf("known_hosts file %q: %w", file, err)
		}
		for _, p := range known.Skipped {
			a.ui.warn("%s: %s", p.Row, p.Reason)
		}
		if known.More > 0 {
			a.ui.warn("and %d more lines were skipped", known.More)
		}
		added, err := r.TrustHostKeys(ctx, known.Keys, o.replaces...)
		if err != nil {
			return hostKeyHint(err)
		}
		a.ui.info("%s has host keys of %d of %d nodes; %d host keys were pinned", file, len(known.Keys), len(nodes), added)
		if a.json {
			if err := showPins(ctx, a, r, known.Keys); err != nil {
				return err
			}
		}
		if len(known.Keys) < len(nodes) && len(args) > 0 {
			return fmt.Errorf("%w: %s has no host key for %d of the selected nodes", errPartial, file, len(nodes)-len(known.Keys))
		}
		return nil
	})
}

// showPins prints the pins of these keys as JSON.
func showPins(ctx context.Context, a *app, r *registry.Registry, keys map[string][]ssh.PublicKey) error {
	if len(keys) == 0 {
		return nil
	}
	pinned, err := r.ListHostKeys(ctx, slices.Sorted(maps.Keys(keys))...)
	if err != nil {
		return err
	}
	return objects(a.ui, slices.DeleteFunc(pinned, func(p registry.HostKey) bool {
		return !slices.ContainsFunc(keys[p.Node], func(k ssh.PublicKey) bool { return ssh.FingerprintSHA256(k) == vault.Fingerprint(p.PublicKey) })
	}))
}

func hostKeyHint(err error) error {
	if errors.Is(err, registry.ErrHostKeyChanged) {
		return withHint(err, "Was the machine installed again? If you know why the key changed, replace the old key: --replace SHA256:...")
	}
	return err
}
