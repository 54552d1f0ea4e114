package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// ListHostKeys returns the pinned host keys of the named nodes, or without names of
// all nodes, ordered by node, type and public key. A missing node is ErrNotFound.
func (r *Registry) ListHostKeys(ctx context.Context, names ...string) ([]HostKey, error) {
	var list []HostKey
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	err := r.v.View(ctx, func(tx *vault.Tx) error {
		for _, name := range names {
			if err := requireNode(ctx, tx, name); err != nil {
				return fmt.Errorf("node %q: %w", name, err)
			}
			keys, err := nodeHostKeys(ctx, tx, name)
			if err != nil {
				return err
			}
			list = append(list, keys...)
		}
		if len(names) > 0 {
			return nil
		}
		for k, err := range EachHostKey(ctx, tx) {
			if err != nil {
				return err
			}
			list = append(list, k)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list host keys: %w", err)
	}
	return list, nil
}

// TrustHostKey pins a host key for a node and reports whether it was new. Of a key
// that is pinned already it updates LastSeen. Where another key of the same type is
// pinned, the error is ErrHostKeyChanged and names that key's fingerprint. If
// replaces has the fingerprint, the old key is replaced instead. A missing node is
// ErrNotFound.
func (r *Registry) TrustHostKey(ctx context.Context, node string, key ssh.PublicKey, replaces ...string) (added bool, err error) {
	err = r.v.Update(ctx, func(tx *vault.Tx) (err error) {
		added, err = trustHostKey(ctx, tx, node, key, replaces)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("trust host key of node %q: %w", node, err)
	}
	return added, nil
}

// TrustHostKeys is TrustHostKey for many nodes in one transaction. The keys of the
// map are names of nodes. It returns how many host keys were new.
func (r *Registry) TrustHostKeys(ctx context.Context, keys map[string][]ssh.PublicKey, replaces ...string) (added int, err error) {
	err = r.v.Update(ctx, func(tx *vault.Tx) error {
		names := []string{}
		for name := range keys {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			for _, key := range keys[name] {
				isNew, err := trustHostKey(ctx, tx, name, key, replaces)
				if err != nil {
					return fmt.Errorf("trust host key of node %q: %w", name, err)
				}
				if isNew {
					added++
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return added, nil
}

func trustHostKey(ctx context.Context, tx *vault.Tx, node string, key ssh.PublicKey, replaces []string) (bool, error) {
	if err := requireNode(ctx, tx, node); err != nil {
		return false, err
	}
	k := HostKey{Node: node, Type: key.Type(), PublicKey: publicKeyLine(key), FirstSeen: tx.Now(), LastSeen: tx.Now()}
	if err := k.Validate(); err != nil {
		return false, err
	}
	pinned, err := selectNodeHostKeys(ctx, tx, node)
	if err != nil {
		return false, err
	}
	known, old, err := comparePins(pinned, k, replaces)
	switch {
	case err != nil:
		return false, err
	case known:
		return false, updateHostKeySeen(ctx, tx, k)
	}
	var changes []string
	for _, old := range old {
		changes = append(changes, "replaces "+vault.Fingerprint(old.PublicKey))
		if err := deleteHostKey(ctx, tx, old); err != nil {
			return false, err
		}
	}
	if err := insertHostKeys(ctx, tx, []HostKey{k}); err != nil {
		return false, err
	}
	detail := strings.Join(append([]string{k.Type + " " + vault.Fingerprint(k.PublicKey)}, changes...), "; ")
	return true, tx.Audit(ctx, vault.Event{Action: ActionTrustHostKey, Subject: node, Detail: detail})
}

// comparePins reports whether a host key is pinned already. If it is not, old has the pinned
// keys that it replaces: those of its type. One whose fingerprint is not in replaces is
// ErrHostKeyChanged.
func comparePins(pinned []HostKey, k HostKey, replaces []string) (known bool, old []HostKey, err error) {
	if slices.ContainsFunc(pinned, func(p HostKey) bool { return p.PublicKey == k.PublicKey }) {
		return true, nil, nil
	}
	for _, p := range pinned {
		switch {
		case p.Type != k.Type:
			continue
		case !slices.Contains(replaces, vault.Fingerprint(p.PublicKey)):
			return false, nil, fmt.Errorf("%w: %s of type %s is pinned, %s was given", ErrHostKeyChanged, vault.Fingerprint(p.PublicKey), k.Type, vault.Fingerprint(k.PublicKey))
		}
		old = append(old, p)
	}
	return false, old, nil
}

// ForgetHostKeys removes pinned host keys of the nodes, in one transaction, and returns them. It
// removes the keys with the fingerprint, or with "" all keys. Where there are none, the error is
// ErrNotFound.
func (r *Registry) ForgetHostKeys(ctx context.Context, fingerprint string, nodes ...string) (forgotten []HostKey, err error) {
	err = r.v.Update(ctx, func(tx *vault.Tx) error {
		forgotten = nil
		for _, node := range nodes {
			gone, err := forgetHostKeys(ctx, tx, node, fingerprint)
			if err != nil {
				return fmt.Errorf("node %q: %w", node, err)
			}
			forgotten = append(forgotten, gone...)
		}
		if len(forgotten) == 0 {
			return ErrNotFound
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("forget host keys: %w", err)
	}
	return forgotten, nil
}

func forgetHostKeys(ctx context.Context, tx *vault.Tx, node, fingerprint string) (gone []HostKey, err error) {
	pinned, err := selectNodeHostKeys(ctx, tx, node)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, k := range pinned {
		if fingerprint != "" && vault.Fingerprint(k.PublicKey) != fingerprint {
			continue
		}
		if err := deleteHostKey(ctx, tx, k); err != nil {
			return nil, err
		}
		gone = append(gone, k)
		names = append(names, k.Type+" "+vault.Fingerprint(k.PublicKey))
	}
	if len(gone) == 0 {
		return nil, nil
	}
	return gone, tx.Audit(ctx, vault.Event{Action: ActionForgetHostKey, Subject: node, Detail: strings.Join(names, "; ")})
}
