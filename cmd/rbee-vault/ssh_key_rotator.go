package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// rotationStore records rotations. Each method is one transaction.
type rotationStore interface {
	BeginKeyRotation(ctx context.Context, node string) (registry.KeyRotation, error)
	SwitchKeyRotation(ctx context.Context, node string) error
	SaveKeyRotations(ctx context.Context, nodes ...string) error
	EndKeyRotation(ctx context.Context, node string) (users []string, err error)
}

var _ rotationStore = (*registry.Registry)(nil)

// rotationHosts works on nodes. Each method may be repeated, and called for several nodes at
// once.
type rotationHosts interface {
	// authorize adds the new key, by a login with the old one.
	authorize(ctx context.Context, k registry.KeyRotation) error
	// login logs in with a key.
	login(ctx context.Context, node, fingerprint string) error
	// deauthorize removes the old key, by a login with the new one. It reports whether it
	// was there.
	deauthorize(ctx context.Context, k registry.KeyRotation) (removed bool, err error)
}

var _ rotationHosts = (*nodeKeys)(nil)

var (
	errOldKeyBack     = errors.New("the line of the old key came back into authorized_keys after it was removed")
	errOldKeyAccepted = errors.New("the node still accepts the old key")
	errSameAccount    = errors.New("other nodes use the old key, and would lose it too: they have the same account or home directory")
)

// keyRotator replaces the keys of nodes, of several at once. No old key is removed from a
// node before the vault has switched each node that it could, and the backup is made.
type keyRotator struct {
	store    rotationStore
	hosts    rotationHosts
	parallel int                                           // how many nodes at once; 0: one
	backup   func(context.Context) error                   // nil: none is made
	report   func(k registry.KeyRotation, err error) error // is called for one node at a time

	mu     sync.Mutex          // guards what follows
	failed int                 // nodes
	shared map[string][]string // the nodes that still use the old keys, by fingerprint
}

// run returns how many nodes are not done; the report has said why. The error is one that
// says nothing of a node. Every node is then at the step that the vault has recorded.
func (k *keyRotator) run(ctx context.Context, nodes []string) (failed int, err error) {
	k.shared = map[string][]string{}
	rotations := make([]registry.KeyRotation, len(nodes))
	err = k.each(ctx, len(nodes), func(ctx context.Context, i int) (err error) {
		if rotations[i], err = k.introduce(ctx, nodes[i]); err != nil {
			err = k.done(ctx, rotations[i], err)
			rotations[i] = registry.KeyRotation{}
		}
		return err
	})
	if err != nil {
		return k.failed, err
	}
	switched := slices.DeleteFunc(rotations, func(r registry.KeyRotation) bool { return r.Node == "" })
	if err := k.save(ctx, switched); err != nil {
		return k.failed, fmt.Errorf("back up the new keys before an old one is removed: %w", err)
	}
	err = k.each(ctx, len(switched), func(ctx context.Context, i int) error {
		return k.done(ctx, switched[i], k.retire(ctx, switched[i]))
	})
	return k.failed, err
}

// each calls do for the numbers below n, until one call fails.
func (k *keyRotator) each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(max(k.parallel, 1))
	for i := range n {
		group.Go(func() error {
			if limited.Err() != nil {
				return limited.Err()
			}
			return do(limited, i)
		})
	}
	return group.Wait()
}

// done reports what became of a node, unless it was given up.
func (k *keyRotator) done(ctx context.Context, rotation registry.KeyRotation, err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		k.failed++
	}
	return k.report(rotation, err)
}

// introduce takes a node to the step switched: it accepts the new key, and the vault uses it.
func (k *keyRotator) introduce(ctx context.Context, node string) (registry.KeyRotation, error) {
	rotation, err := k.store.BeginKeyRotation(ctx, node)
	if errors.Is(err, registry.ErrNotFound) {
		err = withHint(err, "It uses no key in the vault. Give it one: rbee-vault ssh-key generate --node %s", node)
	}
	if err != nil {
		return registry.KeyRotation{Node: node}, err
	}
	if rotation.Step != registry.RotationPending {
		return rotation, nil
	}
	notAdded := k.hosts.authorize(ctx, rotation)
	if notAdded != nil && !mayBeAdded(notAdded) {
		return rotation, notAdded
	}
	// The login alone decides: the line may have been added by hand, or by a run that a
	// restored vault knows nothing of.
	if err := k.hosts.login(ctx, node, rotation.New); err != nil {
		return rotation, withHint(errors.Join(notAdded, err), "Add the new key beside the old one by hand, and run the command again: rbee-vault ssh-key show %s", rotation.New)
	}
	if err := k.store.SwitchKeyRotation(ctx, node); err != nil {
		return rotation, err
	}
	rotation.Step = registry.RotationSwitched
	return rotation, nil
}

// mayBeAdded reports whether the node may accept the new key although authorize failed so.
func mayBeAdded(err error) bool {
	return errors.Is(err, hive.ErrPermission) || errors.Is(err, hive.ErrNotAuthorized) || errors.Is(err, hive.ErrUnknownOutcome)
}

// save makes the backup, if a rotation needs one. They are then at the step saved.
func (k *keyRotator) save(ctx context.Context, rotations []registry.KeyRotation) error {
	var names []string
	for _, rotation := range rotations {
		if rotation.Step == registry.RotationSwitched {
			names = append(names, rotation.Node)
		}
	}
	if k.backup == nil || len(names) == 0 {
		return nil
	}
	if err := k.backup(ctx); err != nil {
		return err
	}
	return k.store.SaveKeyRotations(ctx, names...)
}

// retire removes the old key: from the node, and when the node refuses it, from the vault.
func (k *keyRotator) retire(ctx context.Context, rotation registry.KeyRotation) error {
	if _, err := k.hosts.deauthorize(ctx, rotation); err != nil {
		return err
	}
	// By another login with the new key. Something may write the file anew.
	if back, err := k.hosts.deauthorize(ctx, rotation); err != nil {
		return err
	} else if back {
		return withHint(errOldKeyBack, "Find what writes the file, such as a configuration management, and run the command again.")
	}
	// The server may read another file too.
	err := k.hosts.login(ctx, rotation.Node, rotation.Old)
	if err == nil {
		return withHint(errOldKeyAccepted, "Its line is in another file that the server reads. Remove it there, and run the command again.")
	}
	if !refused(err, rotation.Node) {
		return err
	}
	k.mu.Lock() // the last one to end has the last word on who uses the key
	defer k.mu.Unlock()
	users, err := k.store.EndKeyRotation(ctx, rotation.Node)
	if err == nil {
		k.shared[rotation.Old] = users
	}
	return err
}

// refused reports whether the node itself, not one on the way to it, refused a key.
func refused(err error, node string) bool {
	at, ok := errors.AsType[*hive.Error](err)
	return errors.Is(err, hive.ErrPermission) && ok && at.Node == node
}
