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

// MarshalJSON returns the key on one line, with its fields in a fixed order.
func (k HostKey) MarshalJSON() ([]byte, error) { return k.AppendJSON(nil) }

// AppendJSON appends what MarshalJSON returns.
func (k HostKey) AppendJSON(buf []byte) ([]byte, error) {
	l := wire.NewLine(buf)
	l.Text("node", k.Node)
	l.Text("type", k.Type)
	l.Text("public_key", k.PublicKey)
	l.Time("first_seen", k.FirstSeen)
	l.Time("last_seen", k.LastSeen)
	return l.End()
}

// UnmarshalJSON reads what MarshalJSON writes and validates it. Every field is
// required. Errors are ErrInvalid; k is then unchanged.
func (k *HostKey) UnmarshalJSON(data []byte) error {
	got, ok := scanHostKey(string(data))
	if !ok {
		got = HostKey{}
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
	}
	if err := got.Validate(); err != nil {
		return err
	}
	*k = got
	return nil
}

// scanHostKey parses the form that MarshalJSON writes.
func scanHostKey(line string) (k HostKey, ok bool) {
	s := wire.NewScan(line)
	s.Literal(`"node":`)
	k.Node = s.Text()
	s.Literal(`,"type":`)
	k.Type = s.Text()
	s.Literal(`,"public_key":`)
	k.PublicKey = s.Text()
	s.Literal(`,"first_seen":`)
	k.FirstSeen = s.Time()
	s.Literal(`,"last_seen":`)
	k.LastSeen = s.Time()
	return k, s.End()
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

// InsertHostKeys stores host keys of a backup. The error is ErrNotFound when a node is
// missing, ErrExists when a node has a key already. It writes no audit row. After an error the
// transaction must not be committed.
func InsertHostKeys(ctx context.Context, tx *vault.Tx, keys ...HostKey) error {
	known := "" // the node that was there last: the keys of a node follow each other
	for _, k := range keys {
		err := k.Validate()
		if err == nil && k.Node != known {
			err = requireNode(ctx, tx, k.Node)
		}
		if err != nil {
			return fmt.Errorf("insert host key of node %q: %w", k.Node, err)
		}
		known = k.Node
	}
	if err := insertHostKeys(ctx, tx, keys); err != nil {
		return fmt.Errorf("insert host keys of nodes %q to %q: %w", keys[0].Node, keys[len(keys)-1].Node, err)
	}
	return nil
}
