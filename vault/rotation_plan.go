package vault

import (
	"context"
	"errors"

	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// Rotated describes a new key.
type Rotated struct {
	Generation int64
	KeyID      KeyID
	Previous   KeyID // of the previous key, which opens nothing any more
	Slots      []Slot
	Keyring    bool
	// Signer is the new generation's signer, as a line of authorized_keys. Sheets that name the
	// signer before it still lead to it, by a certificate. A former reader could forge that
	// certificate.
	Signer string
}

// rotationPlan is a rotation after all checks that need no lock. The new key is already wrapped
// for each slot, so no plugin runs while others are blocked.
type rotationPlan struct {
	key     *Key
	wrapped map[string]string // by slot id
	seen    anchor            // how far the vault had come
	gives   Rotated
}

func (v *Vault) planRotation(ctx context.Context) (plan rotationPlan, err error) {
	if err := v.enter(ctx); err != nil {
		return plan, err
	}
	defer v.leave()
	if err := v.resettle(ctx); err != nil {
		return plan, err
	}
	plan = rotationPlan{key: rootkey.Generate(), wrapped: map[string]string{}}
	defer func() {
		if err != nil {
			plan.key.Wipe()
		}
	}()
	var r reading
	err = v.view(ctx, func(tx *Tx) (err error) {
		if r, err = tx.read(ctx); err == nil {
			_, plan.seen, err = tx.anchor(ctx)
		}
		return errors.Join(err, r.replayed)
	})
	if err != nil {
		return plan, err
	}
	m, slots := r.meta, r.slots
	if m.Keyring {
		if err := probeKeyring(ctx, v.cfg.Keyring, plan.key.ID()); err != nil {
			return plan, err
		}
		if err := v.compareAnchor(ctx, r); err != nil && !(v.cfg.AcceptRollback && errors.Is(err, ErrRollback)) {
			return plan, err
		}
	}
	for _, s := range slots {
		if err := s.wrap(ctx, plan.key, v.cfg.Plugins); err != nil {
			return plan, err
		}
		plan.wrapped[s.ID] = s.wrapped
	}
	plan.gives = Rotated{Generation: m.Generation + 1, Previous: m.KeyID, Slots: slots, Keyring: m.Keyring}
	return plan, nil
}

// PlanRotation checks, without changing anything, whether a rotation would succeed. It checks
// that no other process has the vault open, that the keyring answers if it is an unlock method,
// that the database is not an older copy, and that every slot's recipient accepts a key. It
// returns the result that a rotation would have; KeyID stays empty. Errors are those of
// [Vault.Rotate].
func (v *Vault) PlanRotation(ctx context.Context) (Rotated, error) {
	plan, err := v.planRotation(ctx)
	if err != nil {
		return Rotated{}, err
	}
	plan.key.Wipe()
	if err := v.acquireAll(ctx); err != nil {
		return Rotated{}, err
	}
	defer v.gate.Release(everybody)
	if err := v.changeable(); err != nil {
		return Rotated{}, err
	}
	return plan.gives, v.alone(ctx, lastTry, func() (*Key, error) { return nil, nil })
}
