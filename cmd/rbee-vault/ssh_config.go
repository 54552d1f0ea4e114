package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// hop is a node that ssh logs in to.
type hop struct {
	node registry.Node
	pins []registry.HostKey
	key  string // public key line; "" where the node has its key in a file
}

// hopsTo returns the nodes on the way to a node, which comes last. Each has a pinned host
// key and an SSH key, or the error says how to get them.
func hopsTo(ctx context.Context, r *registry.Registry, name string) ([]hop, error) {
	route, err := (&hive.Dialer{Registry: r}).Route(ctx, name)
	if err != nil {
		return nil, noNode(ctx, r, name, err)
	}
	var hops []hop
	for _, n := range route {
		h, err := newHop(ctx, r, n)
		if err != nil {
			return nil, err
		}
		hops = append(hops, h)
	}
	return hops, nil
}

func newHop(ctx context.Context, r *registry.Registry, n registry.Node) (hop, error) {
	pins, err := r.ListHostKeys(ctx, n.Name)
	if err != nil {
		return hop{}, err
	}
	if len(pins) == 0 {
		return hop{}, withHint(fmt.Errorf("%w: no host key of node %q is pinned", registry.ErrNotFound, n.Name),
			"Compare the host key and pin it: rbee-vault check %s", n.Name)
	}
	key, err := r.NodeSSHKey(ctx, n.Name)
	switch {
	case err == nil:
		return hop{n, pins, key.PublicKey}, nil
	case !errors.Is(err, registry.ErrNotFound):
		return hop{}, err
	case n.SSHKeyPath != "":
		return hop{n, pins, ""}, nil
	}
	return hop{}, withHint(fmt.Errorf("%w: node %q has no SSH key", registry.ErrNotFound, n.Name),
		"%s", strings.ReplaceAll(outcomeHints[hive.NoKey], "NODE", n.Name))
}

// sshForAll is the end of the configuration, for every host: nothing is trusted but the
// pins, nothing is shared, and the agent of this process is the only one. A host that has
// no block of its own has no pins, so ssh ends there.
const sshForAll = `
Host *
    UserKnownHostsFile none
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    UpdateHostKeys no
    VerifyHostKeyDNS no
    CanonicalizeHostname no
    ForwardAgent no
    ControlMaster no
    ControlPath none
    PreferredAuthentications publickey
    IdentitiesOnly yes
    IdentityAgent %s
`

// writeSSHFiles writes what ssh needs for the hops into the directory, and returns the path
// of the configuration. No file holds a secret. Options on ssh's command line do not reach
// the ssh of a jump, but the file does.
func writeSSHFiles(dir, socket string, hops []hop) (config string, err error) {
	var b strings.Builder
	for i, h := range hops {
		known := filepath.Join(dir, fmt.Sprintf("known_hosts.%d", i)) // names may differ in case alone
		var keys strings.Builder
		for _, k := range h.pins {
			fmt.Fprintf(&keys, "%s %s\n", strings.ToLower(h.node.Name), k.PublicKey)
		}
		identity, err := h.identityFile(dir, i)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(known, []byte(keys.String()), 0o600); err != nil {
			return "", err
		}
		jump := "none"
		if i > 0 {
			jump = hops[i-1].node.Name
		}
		host, _ := registry.SSHConfigValue(h.node.SSHHost)
		fmt.Fprintf(&b, `
Host %[1]s
    HostName %[2]s
    Port %[3]d
    User %[4]s
    HostKeyAlias %[1]s
    UserKnownHostsFile %[5]s
    HostKeyAlgorithms %[6]s
    IdentityFile %[7]s
    ProxyJump %[8]s
`, h.node.Name, host, h.node.SSHPort, h.node.SSHUser, known, strings.Join(registry.HostKeyAlgorithms(h.pins), ","), identity, jump)
	}
	fmt.Fprintf(&b, sshForAll, socket)
	config = filepath.Join(dir, "config")
	return config, os.WriteFile(config, []byte(b.String()), 0o600)
}

// identityFile returns the value of IdentityFile: a public key, for the agent, or the file
// that the node's path names.
func (h hop) identityFile(dir string, i int) (string, error) {
	if h.key != "" {
		file := filepath.Join(dir, fmt.Sprintf("%d.pub", i))
		return file, os.WriteFile(file, []byte(h.key+"\n"), 0o600)
	}
	value, ok := registry.SSHConfigValue(h.node.SSHKeyPath)
	if !ok {
		return "", fmt.Errorf("%w: ssh would expand what is in the key path %q of node %q", vault.ErrInvalid, h.node.SSHKeyPath, h.node.Name)
	}
	return value, nil
}
