package main

import (
	"bytes"
	"context"
	"slices"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// nodeJSON is a node with the fingerprints of its keys, as JSON for a program. Its fields
// are those of the node, then ssh_key and host_keys.
type nodeJSON struct {
	node registry.Node
	keys nodeKeysJSON
}

type nodeKeysJSON struct {
	SSHKey   *string  `json:"ssh_key"`   // null: the vault has no key for the node
	HostKeys []string `json:"host_keys"` // sorted
}

func (n nodeJSON) MarshalJSON() ([]byte, error) {
	node, err := n.node.MarshalJSON()
	if err != nil {
		return nil, err
	}
	keys, err := wire.Marshal(n.keys)
	if err != nil {
		return nil, err
	}
	// Both are objects with members, so one follows the other.
	return slices.Concat(bytes.TrimSuffix(node, []byte("}")), []byte(","), bytes.TrimPrefix(keys, []byte("{"))), nil
}

// nodesJSON adds the fingerprints of their keys to the nodes.
func nodesJSON(ctx context.Context, r *registry.Registry, nodes []registry.Node) ([]nodeJSON, error) {
	sshKeys, err := r.ListSSHKeys(ctx)
	if err != nil {
		return nil, err
	}
	pins, err := r.ListHostKeys(ctx)
	if err != nil {
		return nil, err
	}
	keys := map[string]nodeKeysJSON{}
	for _, k := range sshKeys {
		for _, name := range k.Nodes {
			keys[name] = nodeKeysJSON{SSHKey: &k.Fingerprint}
		}
	}
	for _, pin := range pins {
		k := keys[pin.Node]
		k.HostKeys = append(k.HostKeys, vault.Fingerprint(pin.PublicKey))
		keys[pin.Node] = k
	}
	var list []nodeJSON
	for _, n := range nodes {
		k := keys[n.Name]
		k.HostKeys = notNil(k.HostKeys)
		slices.Sort(k.HostKeys)
		list = append(list, nodeJSON{n, k})
	}
	return list, nil
}
