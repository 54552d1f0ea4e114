package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

var (
	_ json.Marshaler   = HostKey{}
	_ json.Unmarshaler = (*HostKey)(nil)
)

// HostKey is a pinned host key of a node. A node may have several.
type HostKey struct {
	Node      string    // the node's name
	Type      string    // such as ssh-ed25519
	PublicKey string    // public key line without a comment
	FirstSeen time.Time // whole milliseconds, UTC
	LastSeen  time.Time // not before FirstSeen
}

// Validate returns a *FieldError when a field is not valid or does not agree with
// another.
func (k HostKey) Validate() error {
	if rule := ruleName(k.Node); rule != "" {
		return &FieldError{Field: "node", Rule: rule}
	}
	if _, err := parsePublicKey(k.Type, k.PublicKey); err != nil {
		return err
	}
	if !validMilli(k.FirstSeen) {
		return &FieldError{Field: "first_seen", Rule: ruleUnix}
	}
	if !validMilli(k.LastSeen) {
		return &FieldError{Field: "last_seen", Rule: ruleUnix}
	}
	if k.LastSeen.Before(k.FirstSeen) {
		return &FieldError{Field: "last_seen", Rule: "must not be before first_seen"}
	}
	return nil
}

type hostKeyJSON struct {
	Node      string `json:"node"`
	Type      string `json:"type"`
	PublicKey string `json:"public_key"`
	FirstSeen string `json:"first_seen"`
	LastSeen  string `json:"last_seen"`
}

// MarshalJSON returns the key on one line, with its fields in a fixed order.
func (k HostKey) MarshalJSON() ([]byte, error) {
	return wire.MarshalTexts(hostKeyJSON{
		Node:      k.Node,
		Type:      k.Type,
		PublicKey: k.PublicKey,
		FirstSeen: wire.FormatTime(k.FirstSeen),
		LastSeen:  wire.FormatTime(k.LastSeen),
	}, k.Node, k.Type, k.PublicKey)
}

// UnmarshalJSON reads what MarshalJSON writes and validates it. Every field is
// required. Errors are ErrInvalid; k is then unchanged.
func (k *HostKey) UnmarshalJSON(data []byte) error {
	var got HostKey
	err := wire.UnmarshalObject(data, []wire.Field{
		{Name: "node", Value: &got.Node, Required: true},
		{Name: "type", Value: &got.Type, Required: true},
		{Name: "public_key", Value: &got.PublicKey, Required: true},
		{Name: "first_seen", Value: &got.FirstSeen, Required: true},
		{Name: "last_seen", Value: &got.LastSeen, Required: true},
	})
	if err != nil {
		return err
	}
	if err := got.Validate(); err != nil {
		return err
	}
	*k = got
	return nil
}

// nodeHostKeys returns a node's host keys, validated.
func nodeHostKeys(ctx context.Context, tx *vault.Tx, node string) ([]HostKey, error) {
	keys, err := selectNodeHostKeys(ctx, tx, node)
	for _, k := range keys {
		if bad := k.Validate(); bad != nil && err == nil {
			err = errBadHostKey(k, bad)
		}
	}
	return keys, err
}

func errBadHostKey(k HostKey, bad error) error {
	return fmt.Errorf("%w: host key of node %.80q: %v", ErrBadRow, k.Node, bad)
}

// EachHostKey yields all host keys, ordered by node, type and public key. It stops
// after an error. Other statements may run in tx during the iteration.
func EachHostKey(ctx context.Context, tx *vault.Tx) iter.Seq2[HostKey, error] {
	return func(yield func(HostKey, error) bool) {
		for k, err := range selectHostKeys(ctx, tx, sqlSelectHostKeys(tx.Checked("host_keys", "host_keys"))) {
			if err == nil {
				if bad := k.Validate(); bad != nil {
					err = errBadHostKey(k, bad)
				}
			}
			if err != nil {
				yield(HostKey{}, fmt.Errorf("read host keys: %w", err))
				return
			}
			if !yield(k, nil) {
				return
			}
		}
	}
}

// InsertHostKey stores a host key of a backup. The error is ErrNotFound when the
// node is missing, ErrExists when the node has this key. It writes no audit row.
func InsertHostKey(ctx context.Context, tx *vault.Tx, k HostKey) error {
	err := k.Validate()
	if err == nil {
		err = requireNode(ctx, tx, k.Node)
	}
	if err == nil {
		err = insertHostKey(ctx, tx, k)
	}
	if err != nil {
		return fmt.Errorf("insert host key of node %q: %w", k.Node, err)
	}
	return nil
}
