package backup

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// The actions of the audit log for targets. The subject is the target's name, the detail
// of a new one its address.
const (
	ActionAddTarget    vault.UrgentAction = "backup.target.add"
	ActionRemoveTarget vault.UrgentAction = "backup.target.remove"
)

// AddTarget records a target. A name under which copies are recorded at another place is
// refused: they would be looked for here. Errors: [vault.ErrInvalid], [ErrExists].
func AddTarget(ctx context.Context, v *vault.Vault, t Target) error {
	if err := t.Validate(); err != nil {
		return err
	}
	return v.Update(ctx, func(tx *vault.Tx) error {
		if there, err := targetExists(ctx, tx, t.Name); err != nil {
			return err
		} else if there {
			return fmt.Errorf("the target %s %w", t.Name, ErrExists)
		}
		if err := insertTarget(ctx, tx, t); err != nil {
			return fmt.Errorf("add target %s: %w", t.Name, err)
		}
		if place, err := otherPlace(ctx, tx, t.Name); err != nil {
			return fmt.Errorf("add target %s: %w", t.Name, err)
		} else if place != "" {
			return fmt.Errorf("%w: the name %s stands for copies of backups at %s; choose another one", vault.ErrInvalid, t.Name, place)
		}
		return tx.Audit(ctx, vault.Event{Action: ActionAddTarget, Subject: t.Name, Detail: t.URL})
	})
}

// RemoveTarget forgets a target, and leaves what it holds alone. An unknown name:
// [registry.ErrNotFound].
func RemoveTarget(ctx context.Context, v *vault.Vault, name string) error {
	return v.Update(ctx, func(tx *vault.Tx) error {
		if there, err := targetExists(ctx, tx, name); err != nil {
			return err
		} else if !there {
			return fmt.Errorf("the target %s: %w", name, registry.ErrNotFound)
		}
		if err := deleteTarget(ctx, tx, name); err != nil {
			return fmt.Errorf("remove target %s: %w", name, err)
		}
		return tx.Audit(ctx, vault.Event{Action: ActionRemoveTarget, Subject: name})
	})
}

// Targets returns the vault's targets by name, without their secrets.
func Targets(ctx context.Context, v *vault.Vault) ([]Target, error) {
	var targets []Target
	err := v.View(ctx, func(tx *vault.Tx) error {
		for t, err := range EachTarget(ctx, tx) {
			if err != nil {
				return err
			}
			clear(t.Secret)
			t.Secret = nil
			targets = append(targets, t)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read targets: %w", err)
	}
	return targets, nil
}

// OpenTarget returns the store of one of the vault's targets. It does not yet reach out to
// it. An unknown name: [registry.ErrNotFound].
func OpenTarget(ctx context.Context, v *vault.Vault, name string) (store Store, err error) {
	err = v.View(ctx, func(tx *vault.Tx) error {
		store, err = openTarget(ctx, tx, name)
		return err
	})
	return store, err
}

// OpenStore returns the store of a target that no vault needs to know. It does not yet
// reach out to it.
func OpenStore(ctx context.Context, t Target) (Store, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	return openStore(ctx, t)
}

func openTarget(ctx context.Context, tx *vault.Tx, name string) (Store, error) {
	for t, err := range EachTarget(ctx, tx) {
		if err != nil {
			return nil, fmt.Errorf("read targets: %w", err)
		}
		defer clear(t.Secret)
		if t.Name == name {
			s, err := openStore(ctx, t)
			if err != nil {
				return failedStore{err}, nil
			}
			return s, nil
		}
	}
	return nil, fmt.Errorf("the target %s: %w", name, registry.ErrNotFound)
}
