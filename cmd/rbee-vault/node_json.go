package main

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// nodeJSON is a node as JSON for a program: all fields of the node, the optional ones too, then
// the fingerprints of its keys.
type nodeJSON struct {
	node registry.Node
	keys nodeFingerprints
}

// nodeFingerprints are those of a node's keys.
type nodeFingerprints struct {
	sshKey   *string  // nil: the vault has no key for the node
	hostKeys []string // of the pins, sorted
}

// readFingerprints reads the fingerprints of all nodes' keys, by node.
func readFingerprints(ctx context.Context, r *registry.Registry) (map[string]nodeFingerprints, error) {
	sshKeys, err := r.ListSSHKeys(ctx)
	if err != nil {
		return nil, err
	}
	pins, err := r.ListHostKeys(ctx)
	if err != nil {
		return nil, err
	}
	keys := map[string]nodeFingerprints{}
	for _, k := range sshKeys {
		for _, name := range k.Nodes {
			keys[name] = nodeFingerprints{sshKey: &k.Fingerprint}
		}
	}
	for _, pin := range pins {
		k := keys[pin.Node]
		k.hostKeys = append(k.hostKeys, vault.Fingerprint(pin.PublicKey))
		slices.Sort(k.hostKeys)
		keys[pin.Node] = k
	}
	return keys, nil
}

// nodeDetailsJSON follows the twelve fields of a node.
type nodeDetailsJSON struct {
	ProxyJump *string           `json:"proxy_jump"`
	Note      *string           `json:"note"`
	Labels    map[string]string `json:"labels"`
	SSHKey    *string           `json:"ssh_key"`
	HostKeys  []string          `json:"host_keys"` // sorted
}

func (n nodeJSON) MarshalJSON() ([]byte, error) {
	details := nodeDetailsJSON{wire.Nullable(n.node.ProxyJump), wire.Nullable(n.node.Note), map[string]string{}, n.keys.sshKey, notNil(n.keys.hostKeys)}
	maps.Copy(details.Labels, n.node.Labels)
	n.node.ProxyJump, n.node.Note, n.node.Labels = "", "", nil
	node, err := n.node.MarshalJSON()
	if err != nil {
		return nil, err
	}
	more, err := wire.Marshal(details)
	if err != nil {
		return nil, err
	}
	// Both are objects with members, so one follows the other.
	return slices.Concat(bytes.TrimSuffix(node, []byte("}")), []byte(","), bytes.TrimPrefix(more, []byte("{"))), nil
}

// nodesJSON adds the fingerprints of their keys to the nodes.
func nodesJSON(ctx context.Context, r *registry.Registry, nodes []registry.Node) ([]nodeJSON, error) {
	keys, err := readFingerprints(ctx, r)
	if err != nil {
		return nil, err
	}
	var list []nodeJSON
	for _, n := range nodes {
		list = append(list, nodeJSON{n, keys[n.Name]})
	}
	return list, nil
}

// showChanged prints nodes as they are now, or with verb what was done to each.
func (a *app) showChanged(ctx context.Context, r *registry.Registry, verb string, names ...string) error {
	if !a.json {
		for _, name := range names {
			a.ui.info("%s %s", verb, name)
		}
		return nil
	}
	var nodes []registry.Node
	for _, name := range names {
		n, err := r.GetNode(ctx, name)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	list, err := nodesJSON(ctx, r, nodes)
	if err != nil {
		return err
	}
	return changed(a.ui, list)
}
