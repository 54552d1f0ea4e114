package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// ListKeyRotations returns the rotations that are under way, by node.
func (r *Registry) ListKeyRotations(ctx context.Context) ([]KeyRotation, error) {
	var list []KeyRotation
	err := r.v.View(ctx, func(tx *vault.Tx) error {
		for k, err := range EachKeyRotation(ctx, tx) {
			if err != nil {
				return err
			}
			list = append(list, k)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// BeginKeyRotation begins to replace the SSH key of a node: it generates an ed25519 key
// and stores it, while the node goes on using its key. Where a rotation is under way, it
// changes nothing and returns that one. A missing node and a node without a key of the
// vault are ErrNotFound.
func (r *Registry) BeginKeyRotation(ctx context.Context, node string) (KeyRotation, error) {
	rotation, err := r.beginKeyRotation(ctx, node)
	if err != nil {
		return KeyRotation{}, fmt.Errorf("begin key rotation of node %q: %w", node, err)
	}
	return rotation, nil
}

func (r *Registry) beginKeyRotation(ctx context.Context, node string) (rotation KeyRotation, err error) {
	err = r.v.Update(ctx, func(tx *vault.Tx) error {
		if rotation, err = selectKeyRotation(ctx, tx, node); !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := requireNode(ctx, tx, node); err != nil {
			return err
		}
		old, err := nodeSSHKey(ctx, tx, node)
		if err != nil {
			return err
		}
		comment := old.Comment
		if len(old.Nodes) > 1 { // so that the comment still names one key
			comment = node
		}
		private, err := GeneratePrivateKey("ed25519", comment)
		if err != nil {
			return err
		}
		defer private.Wipe()
		key, err := storeSSHKey(ctx, tx, ActionGenerateSSHKey, private)
		if err != nil {
			return err
		}
		rotation = KeyRotation{Node: node, Old: old.Fingerprint, New: key.Fingerprint, Step: RotationPending}
		if err := insertKeyRotation(ctx, tx, rotation); err != nil {
			return err
		}
		return auditRotation(ctx, tx, rotation, "", RotationPending)
	})
	return rotation, err
}

// SwitchKeyRotation makes the node use the new key, which it must accept. Where that was
// done already, it changes nothing. A node without a rotation is ErrNotFound.
func (r *Registry) SwitchKeyRotation(ctx context.Context, node string) error {
	err := r.v.Update(ctx, func(tx *vault.Tx) error {
		rotation, err := selectKeyRotation(ctx, tx, node)
		if err != nil || rotation.Step != RotationPending {
			return err
		}
		if err := checkRotatedKey(ctx, tx, rotation); err != nil {
			return err
		}
		if err := moveNodeSSHKey(ctx, tx, node, rotation.Old, rotation.New); err != nil {
			return err
		}
		return stepRotation(ctx, tx, rotation, RotationSwitched)
	})
	if err != nil {
		return fmt.Errorf("switch the key of node %q: %w", node, err)
	}
	return nil
}

// SaveKeyRotations records that a backup, which was begun when they were switched, has
// the new keys. It leaves alone rotations that are not switched or are saved already.
func (r *Registry) SaveKeyRotations(ctx context.Context, nodes ...string) error {
	err := r.v.Update(ctx, func(tx *vault.Tx) error {
		for _, node := range nodes {
			rotation, err := selectKeyRotation(ctx, tx, node)
			if err == nil && rotation.Step == RotationSwitched {
				err = stepRotation(ctx, tx, rotation, RotationSaved)
			}
			if err != nil && !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("node %q: %w", node, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record the backup of new keys: %w", err)
	}
	return nil
}

// EndKeyRotation ends a rotation whose old key the node accepts no longer. The old key is
// removed, unless other nodes use it, or their rotations: it returns their names. A rotation
// that is pending is ErrInvalid, a node without one ErrNotFound.
func (r *Registry) EndKeyRotation(ctx context.Context, node string) (users []string, err error) {
	err = r.v.Update(ctx, func(tx *vault.Tx) error {
		rotation, err := selectKeyRotation(ctx, tx, node)
		if err != nil {
			return err
		}
		if rotation.Step == RotationPending {
			return fmt.Errorf("%w: the node uses the old key", ErrInvalid)
		}
		if err := checkRotatedKey(ctx, tx, rotation); err != nil {
			return err
		}
		if err := endRotation(ctx, tx, rotation); err != nil {
			return err
		}
		if users, err = selectKeyUsers(ctx, tx, rotation.Old); err != nil || len(users) > 0 {
			return err
		}
		if removed, err := deleteUnusedSSHKey(ctx, tx, rotation.Old); err != nil || !removed {
			return err
		}
		return tx.Audit(ctx, vault.Event{Action: ActionRemoveSSHKey, Subject: rotation.Old, Detail: "replaced by " + rotation.New})
	})
	if err != nil {
		return nil, fmt.Errorf("end key rotation of node %q: %w", node, err)
	}
	return users, nil
}

// selectKeyUsers returns the nodes that use a key, and those whose rotation does.
func selectKeyUsers(ctx context.Context, tx *vault.Tx, fingerprint string) ([]string, error) {
	nodes, err := selectSSHKeyNodes(ctx, tx, fingerprint)
	if err != nil {
		return nil, err
	}
	rotating, err := selectRotationNodes(ctx, tx, fingerprint)
	if err != nil {
		return nil, err
	}
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(nodes, rotating)))), nil
}

// checkRotatedKey checks that the node uses the key that the step says. A row that this
// package did not write may say otherwise.
func checkRotatedKey(ctx context.Context, tx *vault.Tx, k KeyRotation) error {
	used, err := selectNodeSSHKey(ctx, tx, k.Node)
	if err == nil && used != k.assigned() {
		err = fmt.Errorf("%w: key rotation of node %q: the node uses the key %s", ErrBadRow, k.Node, orNone(used))
	}
	return err
}

// cancelKeyRotation ends the rotation of a node that gets another key. Both keys stay.
func cancelKeyRotation(ctx context.Context, tx *vault.Tx, node string) error {
	rotation, err := selectKeyRotation(ctx, tx, node)
	if errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return endRotation(ctx, tx, rotation)
}

func endRotation(ctx context.Context, tx *vault.Tx, k KeyRotation) error {
	if err := deleteKeyRotation(ctx, tx, k.Node); err != nil {
		return err
	}
	return auditRotation(ctx, tx, k, k.Step, "")
}

func stepRotation(ctx context.Context, tx *vault.Tx, k KeyRotation, step RotationStep) error {
	if err := updateRotationStep(ctx, tx, k.Node, step); err != nil {
		return err
	}
	return auditRotation(ctx, tx, k, k.Step, step)
}

func auditRotation(ctx context.Context, tx *vault.Tx, k KeyRotation, from, to RotationStep) error {
	detail := describe(fieldChange{"step", orNone(string(from)), orNone(string(to))}, fieldChange{"ssh key", k.Old, k.New})
	return tx.Audit(ctx, vault.Event{Action: ActionRotateSSHKey, Subject: k.Node, Detail: detail})
}
