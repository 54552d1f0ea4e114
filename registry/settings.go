package registry

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Settings returns the settings of the vault that are set, by name.
func (r *Registry) Settings(ctx context.Context) (map[string]string, error) {
	settings := map[string]string{}
	err := r.v.View(ctx, func(tx *vault.Tx) error {
		for s, err := range EachSetting(ctx, tx) {
			if err != nil {
				return err
			}
			settings[s.Name] = s.Value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return settings, nil
}

// SetSetting sets a setting. A name or a value that cannot be is [ErrInvalid].
func (r *Registry) SetSetting(ctx context.Context, s Setting) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("set %.64q: %w", s.Name, err)
	}
	return r.v.Update(ctx, func(tx *vault.Tx) error {
		before, set, err := selectSetting(ctx, tx, s.Name)
		if err == nil && !(set && before == s.Value) {
			if err = upsertSetting(ctx, tx, s); err == nil {
				err = tx.Audit(ctx, vault.Event{Action: ActionSetSetting, Subject: s.Name, Detail: describe(fieldChange{"value", orNone(before), s.Value})})
			}
		}
		if err != nil {
			return fmt.Errorf("set %q: %w", s.Name, err)
		}
		return nil
	})
}

// UnsetSetting removes a setting. One that is not set is [ErrNotFound].
func (r *Registry) UnsetSetting(ctx context.Context, name string) error {
	return r.v.Update(ctx, func(tx *vault.Tx) error {
		before, set, err := selectSetting(ctx, tx, name)
		switch {
		case err != nil:
		case !set:
			err = ErrNotFound
		default:
			if err = deleteSetting(ctx, tx, name); err == nil {
				err = tx.Audit(ctx, vault.Event{Action: ActionUnsetSetting, Subject: name, Detail: before})
			}
		}
		if err != nil {
			return fmt.Errorf("unset %.64q: %w", name, err)
		}
		return nil
	})
}
