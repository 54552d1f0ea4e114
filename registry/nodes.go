package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// CreateNode adds a node. A name that exists is ErrExists. A jump through a node that does
// not exist is a *FieldError.
func (r *Registry) CreateNode(ctx context.Context, n Node) error {
	err := r.writeNode(ctx, n, func(tx *vault.Tx, n Node) error {
		return createJumpingNode(ctx, tx, n)
	})
	if err != nil {
		return fmt.Errorf("create node %q: %w", n.Name, err)
	}
	return nil
}

// KeyChoice says which SSH key a new node uses. At most one of the fields may be set.
// Without any, the node uses no key.
type KeyChoice struct {
	Import   *PrivateKey // stored, unless the vault has it already
	Generate bool        // a new ed25519 key, with the node's name as its comment
	Use      string      // fingerprint of a key in the vault
}

// CreateNodeWithKey is CreateNode for a node that uses a key of the vault, all in one
// transaction. It returns the key's fingerprint, or "" without a key. A missing key
// is ErrNotFound.
func (r *Registry) CreateNodeWithKey(ctx context.Context, n Node, choice KeyChoice) (fingerprint string, err error) {
	k := choice.Import
	if choice.Generate {
		if k, err = GeneratePrivateKey("ed25519", n.Name); err != nil {
			return "", err
		}
		defer k.Wipe()
	}
	err = r.writeNode(ctx, n, func(tx *vault.Tx, n Node) error {
		if err := createJumpingNode(ctx, tx, n); err != nil {
			return err
		}
		switch {
		case choice.Generate:
			fingerprint = k.Fingerprint()
			if _, err := storeSSHKey(ctx, tx, ActionGenerateSSHKey, k); err != nil {
				return err
			}
		case k != nil:
			fingerprint = k.Fingerprint()
			return useKey(ctx, tx, k, n.Name)
		case choice.Use != "":
			fingerprint = choice.Use
			if _, err := selectSealedSSHKey(ctx, tx, fingerprint); err != nil {
				return fmt.Errorf("SSH key %q: %w", fingerprint, err)
			}
		default:
			return nil
		}
		return assignSSHKey(ctx, tx, fingerprint, []string{n.Name})
	})
	if err != nil {
		return "", fmt.Errorf("create node %q: %w", n.Name, err)
	}
	return fingerprint, nil
}

// AddNode adds a node, or replaces the configuration of the node of that name, its jump,
// note and labels included. Where the state of n (last contact, status, backends, devices)
// is unknown, the stored state stays. The node's keys stay too.
func (r *Registry) AddNode(ctx context.Context, n Node) error {
	err := r.writeNode(ctx, n, func(tx *vault.Tx, n Node) error {
		old, err := selectNode(ctx, tx, n.Name)
		if errors.Is(err, ErrNotFound) {
			return createJumpingNode(ctx, tx, n)
		}
		if err != nil {
			return err
		}
		if err := replaceNode(ctx, tx, old, n.withState(old), ActionUpdateNode); err != nil {
			return err
		}
		return checkJumps(ctx, tx, n.Name, changedJumps(old, n))
	})
	if err != nil {
		return fmt.Errorf("add node %q: %w", n.Name, err)
	}
	return nil
}

// GetNode returns the node of exactly that name, or ErrNotFound.
func (r *Registry) GetNode(ctx context.Context, name string) (Node, error) {
	n, err := r.getNode(ctx, name)
	if err != nil {
		return Node{}, fmt.Errorf("get node %q: %w", name, err)
	}
	return n, nil
}

func (r *Registry) getNode(ctx context.Context, name string) (n Node, err error) {
	revision, err := r.refresh(ctx)
	if err != nil {
		return Node{}, err
	}
	if n, ok := r.cache.node(revision, name); ok {
		return n, nil
	}
	err = r.v.View(ctx, func(tx *vault.Tx) (err error) {
		n, err = selectNode(ctx, tx, name)
		return err
	})
	if err == nil {
		r.cache.keep(revision, n)
	}
	return n, err
}

// ListNodes returns all nodes by name, in binary order. If any row is not valid, the
// error is ErrBadRow and names the row.
func (r *Registry) ListNodes(ctx context.Context) ([]Node, error) {
	s, err := r.Snapshot(ctx)
	return s.Nodes(), err
}

// UpdateNode calls change with the node and stores the result, in one write
// transaction. After an error of change, or with a result that is not valid, nothing
// is changed. change must not change the name, for which there is RenameNode, and
// must not call the Registry.
func (r *Registry) UpdateNode(ctx context.Context, name string, change func(*Node) error) error {
	return r.UpdateNodes(ctx, []string{name}, change)
}

// UpdateNodes is UpdateNode for several nodes in one transaction: all of them are
// changed, or none. Jumps are checked when all are changed: that they lead to a node, not
// in a circle, and through at most [MaxJumps] nodes.
func (r *Registry) UpdateNodes(ctx context.Context, names []string, change func(*Node) error) error {
	return r.v.Update(ctx, func(tx *vault.Tx) error {
		var jumped []string
		for _, name := range names {
			old, n, err := changeNode(ctx, tx, name, change)
			if err != nil {
				return fmt.Errorf("update node %q: %w", name, err)
			}
			jumped = append(jumped, changedJumps(old, n)...)
		}
		if err := checkJumps(ctx, tx, "", jumped); err != nil {
			return fmt.Errorf("update %w", err)
		}
		return nil
	})
}

func changeNode(ctx context.Context, tx *vault.Tx, name string, change func(*Node) error) (old, n Node, err error) {
	if old, err = selectNode(ctx, tx, name); err != nil {
		return old, n, err
	}
	n = old.normalized()
	if err := change(&n); err != nil {
		return old, n, err
	}
	if n.Name != old.Name {
		return old, n, &FieldError{Field: "node_name", Rule: "must not change here: rename the node"}
	}
	n = n.normalized()
	if err := n.validate(); err != nil {
		return old, n, err
	}
	return old, n, replaceNode(ctx, tx, old, n, ActionUpdateNode)
}

// RenameNode gives a node another name. Its keys stay with it. A missing node is
// ErrNotFound, and a newName that exists is ErrExists. Nothing happens where newName
// is the node's name already.
func (r *Registry) RenameNode(ctx context.Context, name, newName string) error {
	if err := r.renameNode(ctx, name, newName); err != nil {
		return fmt.Errorf("rename node %q to %q: %w", name, newName, err)
	}
	return nil
}

func (r *Registry) renameNode(ctx context.Context, name, newName string) error {
	if rule := ruleName(newName); rule != "" {
		return &FieldError{Field: "node_name", Rule: rule}
	}
	return r.v.Update(ctx, func(tx *vault.Tx) error {
		if err := requireNode(ctx, tx, name); err != nil {
			return err
		}
		if name == newName {
			return nil
		}
		if taken, err := nodeExists(ctx, tx, newName); err != nil {
			return err
		} else if taken {
			return ErrExists
		}
		if err := renameNode(ctx, tx, name, newName); err != nil {
			return err
		}
		return tx.Audit(ctx, vault.Event{
			Action:  ActionRenameNode,
			Subject: name,
			Detail:  describe(fieldChange{"node_name", strconv.Quote(name), strconv.Quote(newName)}),
		})
	})
}

// RemoveNode removes a node with its host keys. It also removes the node's SSH key
// when no other node uses that. It reports whether there was such a node. While others
// jump through the node, the error is ErrInUse and names them.
func (r *Registry) RemoveNode(ctx context.Context, name string) (removed bool, err error) {
	return r.RemoveNodeIf(ctx, name, nil)
}

// RemoveNodeIf is RemoveNode for a node that check accepts, in the same transaction. After an
// error of check nothing is changed; check must not call the Registry. Nil accepts any node,
// also one whose row is not valid.
func (r *Registry) RemoveNodeIf(ctx context.Context, name string, check func(Node) error) (removed bool, err error) {
	err = r.v.Update(ctx, func(tx *vault.Tx) (err error) {
		if check != nil {
			n, err := selectNode(ctx, tx, name)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			if err == nil {
				err = check(n)
			}
			if err != nil {
				return err
			}
		}
		removed, err = removeNode(ctx, tx, name)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("remove node %q: %w", name, err)
	}
	return removed, nil
}

func removeNode(ctx context.Context, tx *vault.Tx, name string) (bool, error) {
	n, err := selectNode(ctx, tx, name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	readable := err == nil
	if !readable && !errors.Is(err, ErrBadRow) { // a bad row can be removed
		return false, err
	}
	jumpers, count, err := selectJumpers(ctx, tx, name, maxJumpersNamed)
	if err != nil {
		return false, err
	}
	if count > 0 {
		return false, errJumpedThrough(jumpers, count)
	}
	fingerprint, err := selectNodeSSHKey(ctx, tx, name)
	if err != nil {
		return false, err
	}
	keys := []string{fingerprint}
	if rotation, err := selectKeyRotation(ctx, tx, name); err == nil {
		keys = append(keys, rotation.Old, rotation.New)
	} else if !errors.Is(err, ErrNotFound) {
		return false, err
	}
	hostKeys, err := countNodeHostKeys(ctx, tx, name)
	if err != nil {
		return false, err
	}
	if removed, err := deleteNode(ctx, tx, name); err != nil || !removed {
		return false, err
	}
	detail := fmt.Sprintf("host keys: %d", hostKeys)
	if readable {
		detail = describeNode(n) + "; " + detail
	}
	if fingerprint == "" {
		return true, tx.Audit(ctx, vault.Event{Action: ActionRemoveNode, Subject: name, Detail: detail})
	}
	detail += "; ssh key: " + fingerprint
	if err := tx.Audit(ctx, vault.Event{Action: ActionRemoveNode, Subject: name, Detail: detail}); err != nil {
		return false, err
	}
	for _, key := range keys {
		if err := removeUnusedSSHKey(ctx, tx, key, name); err != nil {
			return false, err
		}
	}
	return true, nil
}

// removeUnusedSSHKey removes the key of a removed node, unless another node uses
// it.
func removeUnusedSSHKey(ctx context.Context, tx *vault.Tx, fingerprint, node string) error {
	removed, err := deleteUnusedSSHKey(ctx, tx, fingerprint)
	if err != nil || !removed {
		return err
	}
	return tx.Audit(ctx, vault.Event{
		Action:  ActionRemoveSSHKey,
		Subject: fingerprint,
		Detail:  "no node uses it after the removal of " + strconv.Quote(node),
	})
}

// UpdateStatus stores the status of a node. It writes only when the status changes,
// so it may be called at every heartbeat.
func (r *Registry) UpdateStatus(ctx context.Context, name string, status Status) error {
	err := error(&FieldError{Field: "status", Rule: ruleStatus})
	if status.Valid() {
		err = r.updateState(ctx, name, r.statuses.differs(name, status), func(_ time.Time, n *Node) {
			n.Status = status
		}, func(tx *vault.Tx, _, n Node) error {
			return updateNodeState(ctx, tx, stateOf(n))
		})
	}
	if err != nil {
		return fmt.Errorf("update status of node %q: %w", name, err)
	}
	r.statuses.set(name, status)
	return nil
}

// UpdateLastConnected stores the current time, in whole seconds, as the time of the
// last contact.
func (r *Registry) UpdateLastConnected(ctx context.Context, name string) error {
	err := r.updateState(ctx, name, false, func(now time.Time, n *Node) {
		n.LastConnected = now
	}, func(tx *vault.Tx, _, n Node) error {
		return updateNodeState(ctx, tx, stateOf(n))
	})
	if err != nil {
		return fmt.Errorf("update last contact of node %q: %w", name, err)
	}
	return nil
}

// UpdateCapabilities replaces the backends and the devices. nil makes either unknown.
// It writes only when something changes.
func (r *Registry) UpdateCapabilities(ctx context.Context, name string, backends []string, devices map[string]uint32) error {
	err := validateCapabilities(backends, devices)
	if err == nil {
		err = r.updateState(ctx, name, false, func(_ time.Time, n *Node) {
			n.Backends, n.Devices = backends, devices
		}, func(tx *vault.Tx, old, n Node) error {
			return replaceNode(ctx, tx, old, n, ActionNodeCapabilities)
		})
	}
	if err != nil {
		return fmt.Errorf("update capabilities of node %q: %w", name, err)
	}
	return nil
}

// updateState lets change alter a node's state, and calls write when it differs. Unless it is
// likely to differ, it reads without the write lock first, and does not take the lock where
// nothing changes.
func (r *Registry) updateState(ctx context.Context, name string, likely bool, change func(now time.Time, n *Node),
	write func(tx *vault.Tx, old, n Node) error) error {

	same := false
	look := func(tx *vault.Tx) (old, n Node, err error) {
		if old, err = selectNode(ctx, tx, name); err != nil {
			return old, n, err
		}
		n = old
		change(tx.Now(), &n)
		n = n.normalized()
		same = sameState(old, n)
		return old, n, nil
	}
	if !likely {
		err := r.v.View(ctx, func(tx *vault.Tx) error {
			_, _, err := look(tx)
			return err
		})
		if err != nil || same {
			return err
		}
	}
	return r.v.Update(ctx, func(tx *vault.Tx) error {
		old, n, err := look(tx)
		if err != nil || same {
			return err
		}
		return write(tx, old, n)
	})
}

// writeNode calls write with n normalized and validated, in a write transaction.
func (r *Registry) writeNode(ctx context.Context, n Node, write func(tx *vault.Tx, n Node) error) error {
	n = n.normalized()
	if err := n.validate(); err != nil {
		return err
	}
	return r.v.Update(ctx, func(tx *vault.Tx) error { return write(tx, n) })
}

// createNode inserts a normalized, valid node and its audit row. It does not check the
// jump.
func createNode(ctx context.Context, tx *vault.Tx, n Node) error {
	if err := insertNode(ctx, tx, n); err != nil {
		return err
	}
	return tx.Audit(ctx, vault.Event{Action: ActionAddNode, Subject: n.Name, Detail: describeNode(n)})
}

// createJumpingNode is createNode, and checks the jump.
func createJumpingNode(ctx context.Context, tx *vault.Tx, n Node) error {
	if err := createNode(ctx, tx, n); err != nil {
		return err
	}
	return checkJumps(ctx, tx, n.Name, changedJumps(Node{}, n))
}

// replaceNode stores n, normalized and valid, in place of old where they differ. It
// writes an audit row where an audited field differs; see auditedFields. It does not check
// the jump.
func replaceNode(ctx context.Context, tx *vault.Tx, old, n Node, action vault.Action) error {
	if sameNode(old, n) {
		return nil
	}
	if err := updateNode(ctx, tx, old, n); err != nil {
		return err
	}
	changes := diffNodes(old, n)
	if len(changes) == 0 {
		return nil
	}
	return tx.Audit(ctx, vault.Event{Action: action, Subject: n.Name, Detail: describe(changes...)})
}
