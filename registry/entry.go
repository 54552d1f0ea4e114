package registry

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Entry is a node with what belongs to it.
type Entry struct {
	Node     Node
	SSHKey   string      // fingerprint of the key that it uses; "": none
	HostKeys []HostKey   // pinned for it
	Rotation KeyRotation // of its key; without a Node: none is under way
}

// Difference is a field in which two entries differ, as the audit log shows fields. Keys
// are shown by fingerprint.
type Difference struct {
	Field  string `json:"field"`
	Backup string `json:"backup"`
	Live   string `json:"live"`
}

// Compare returns the fields in which an entry of a backup differs from the vault's. Status
// and last contact do not count: they are always older in a backup. The same holds for when
// a host key was seen.
func (e Entry) Compare(inVault Entry) []Difference {
	var list []Difference
	for _, c := range diffNodes(inVault.Node.normalized(), e.Node.normalized()) {
		list = append(list, Difference{Field: c.field, Backup: c.new, Live: c.old})
	}
	for _, d := range []Difference{
		{"ssh_key", orNone(e.SSHKey), orNone(inVault.SSHKey)},
		{"host_keys", describeHostKeys(e.HostKeys), describeHostKeys(inVault.HostKeys)},
		{"key_rotation", describeRotation(e.Rotation), describeRotation(inVault.Rotation)},
	} {
		if d.Backup != d.Live {
			list = append(list, d)
		}
	}
	return list
}

func describeHostKeys(keys []HostKey) string {
	var list []string
	for _, k := range keys {
		list = append(list, k.Type+" "+vault.Fingerprint(k.PublicKey))
	}
	slices.Sort(list)
	return orNone(strings.Join(list, ", "))
}

func describeRotation(k KeyRotation) string {
	if k.Node == "" {
		return "none"
	}
	return string(k.Step) + ", " + k.Old + " -> " + k.New
}

// selectEntry returns ErrNotFound where there is no such node.
func selectEntry(ctx context.Context, tx *vault.Tx, name string) (Entry, error) {
	var e Entry
	var err error
	if e.Node, err = selectNode(ctx, tx, name); err != nil {
		return Entry{}, err
	}
	if e.SSHKey, err = selectNodeSSHKey(ctx, tx, name); err != nil {
		return Entry{}, err
	}
	if e.HostKeys, err = nodeHostKeys(ctx, tx, name); err != nil {
		return Entry{}, err
	}
	if e.Rotation, err = selectKeyRotation(ctx, tx, name); err != nil && !errors.Is(err, ErrNotFound) {
		return Entry{}, err
	}
	return e, nil
}
