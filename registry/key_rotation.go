package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"regexp"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

var (
	_ json.Marshaler   = KeyRotation{}
	_ json.Unmarshaler = (*KeyRotation)(nil)
)

// KeyRotation is the replacement of the SSH key of a node, while it is under way. The
// vault has both keys.
type KeyRotation struct {
	Node string // the node's name
	Old  string // fingerprint of the key to be replaced
	New  string // fingerprint of the key that replaces it
	Step RotationStep
}

// RotationStep is what was done last for a KeyRotation.
type RotationStep string

// The steps of a rotation, in their order.
const (
	RotationPending  RotationStep = "pending"  // the new key is stored; the node uses the old one
	RotationSwitched RotationStep = "switched" // the node accepts the new key, and uses it
	RotationSaved    RotationStep = "saved"    // and a backup has the new key
)

// fingerprintPattern is a fingerprint as ssh-keygen prints it.
var fingerprintPattern = regexp.MustCompile(`^SHA256:[A-Za-z0-9+/]{43}$`)

// Validate returns a *FieldError when a field is not valid or does not agree with
// another.
func (k KeyRotation) Validate() error {
	if rule := ruleName(k.Node); rule != "" {
		return &FieldError{Field: "node", Rule: rule}
	}
	if !fingerprintPattern.MatchString(k.Old) {
		return &FieldError{Field: "old", Rule: "must be the fingerprint of a key"}
	}
	if !fingerprintPattern.MatchString(k.New) || k.New == k.Old {
		return &FieldError{Field: "new", Rule: "must be the fingerprint of another key"}
	}
	switch k.Step {
	case RotationPending, RotationSwitched, RotationSaved:
		return nil
	}
	return &FieldError{Field: "step", Rule: "must be pending, switched or saved"}
}

// assigned is the key that the node uses at the rotation's step.
func (k KeyRotation) assigned() string {
	if k.Step == RotationPending {
		return k.Old
	}
	return k.New
}

type keyRotationJSON struct {
	Node string `json:"node"`
	Old  string `json:"old"`
	New  string `json:"new"`
	Step string `json:"step"`
}

// MarshalJSON returns the rotation on one line, with its fields in a fixed order.
func (k KeyRotation) MarshalJSON() ([]byte, error) {
	return wire.MarshalTexts(keyRotationJSON{
		Node: k.Node,
		Old:  k.Old,
		New:  k.New,
		Step: string(k.Step),
	}, k.Node, k.Old, k.New, string(k.Step))
}

// UnmarshalJSON reads what MarshalJSON writes and validates it. Every field is
// required. Errors are ErrInvalid; k is then unchanged.
func (k *KeyRotation) UnmarshalJSON(data []byte) error {
	var got KeyRotation
	var step string
	err := wire.UnmarshalObject(data, []wire.Field{
		{Name: "node", Value: &got.Node, Required: true},
		{Name: "old", Value: &got.Old, Required: true},
		{Name: "new", Value: &got.New, Required: true},
		{Name: "step", Value: &step, Required: true},
	})
	if err != nil {
		return err
	}
	got.Step = RotationStep(step)
	if err := got.Validate(); err != nil {
		return err
	}
	*k = got
	return nil
}

// EachKeyRotation yields all rotations by node. It stops after an error. Other statements
// may run in tx during the iteration.
func EachKeyRotation(ctx context.Context, tx *vault.Tx) iter.Seq2[KeyRotation, error] {
	return func(yield func(KeyRotation, error) bool) {
		for k, err := range selectKeyRotations(ctx, tx) {
			if err == nil {
				if bad := k.Validate(); bad != nil {
					err = fmt.Errorf("%w: key rotation of node %.80q: %v", ErrBadRow, k.Node, bad)
				}
			}
			if err != nil {
				yield(KeyRotation{}, fmt.Errorf("read key rotations: %w", err))
				return
			}
			if !yield(k, nil) {
				return
			}
		}
	}
}

// InsertKeyRotation stores a rotation of a backup. The error is ErrNotFound when the node
// or one of the keys is missing, ErrExists when the node has a rotation. It writes no
// audit row.
func InsertKeyRotation(ctx context.Context, tx *vault.Tx, k KeyRotation) error {
	err := k.Validate()
	if err == nil {
		err = requireNode(ctx, tx, k.Node)
	}
	for _, fingerprint := range []string{k.Old, k.New} {
		if err == nil {
			_, err = selectSealedSSHKey(ctx, tx, fingerprint)
		}
	}
	if err == nil {
		err = insertKeyRotation(ctx, tx, k)
	}
	if err != nil {
		return fmt.Errorf("insert key rotation of node %q: %w", k.Node, err)
	}
	return nil
}
