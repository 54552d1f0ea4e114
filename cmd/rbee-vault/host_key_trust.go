package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
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
		n, err := r.GetNode(ctx, name)
		if err != nil {
			return nodeHint(err)
		}
		key, err := seeHostKey(ctx, n, o.fingerprint)
		if err != nil {
			return err
		}
		if _, err := r.TrustHostKey(ctx, name, key, o.replaces...); err != nil {
			return hostKeyHint(err)
		}
		a.ui.info("%s: %s %s is pinned", name, key.Type(), o.fingerprint)
		return nil
	})
}

// hostKeyTypes are tried one after the other: a server shows one key for each connection.
var hostKeyTypes = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512}

// seeHostKey connects to the node until it shows the key with that fingerprint. It does
// not log in.
func seeHostKey(ctx context.Context, n registry.Node, fingerprint string) (ssh.PublicKey, error) {
	address := net.JoinHostPort(n.SSHHost, strconv.Itoa(int(n.SSHPort)))
	var seen []string
	for _, kind := range hostKeyTypes {
		var shown ssh.PublicKey
		conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("reach node %q: %w", n.Name, err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		done := errors.New("seen")
		c, _, _, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
			User:              n.SSHUser,
			HostKeyAlgorithms: []string{kind},
			HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
				shown = key
				return done // before anything secret is sent
			},
		})
		if err == nil {
			c.Close()
		}
		conn.Close()
		if shown == nil {
			continue // the server has no key of this type
		}
		if ssh.FingerprintSHA256(shown) == fingerprint {
			return shown, nil
		}
		seen = append(seen, shown.Type()+" "+ssh.FingerprintSHA256(shown))
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("%s shows no host key: is it an SSH server?", address)
	}
	return nil, withHint(fmt.Errorf("%w: %s shows no host key with that fingerprint, but %s", registry.ErrHostKeyChanged, address, strings.Join(seen, ", ")),
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
		if len(known.Keys) < len(nodes) && len(args) > 0 {
			return fmt.Errorf("%w: %s has no host key for %d of the selected nodes", errPartial, file, len(nodes)-len(known.Keys))
		}
		return nil
	})
}

func hostKeyHint(err error) error {
	if errors.Is(err, registry.ErrHostKeyChanged) {
		return withHint(err, "Was the machine installed again? If you know why the key changed, replace the old key: --replace SHA256:...")
	}
	return err
}
