package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// The OS keyring as a way in, beside the slots.

// AddKeyring makes the OS keyring a way in, or writes its item again where that
// was lost: from any open vault, on a new desktop as well. It returns
// [ErrRollback] where the keyring remembers a later state of the vault, an error
// of package keyring, and those of [Vault.AddSlot].
func (v *Vault) AddKeyring(ctx context.Context) error {
	if v.cfg.Keyring == nil {
		return keyring.ErrUnavailable
	}
	if err := v.enterAndCompareAnchor(ctx); err != nil {
		return err
	}
	return v.changing(ctx, func() error {
		m, _, err := v.metaAndSlots(ctx)
		if err != nil {
			return err
		}
		// Before the commit: a vault never says that its key is in a keyring that
		// does not have it.
		line := v.key.line()
		defer wipe(line)
		if err := v.cfg.Keyring.Set(ctx, v.key.id.String(), string(line)); err != nil {
			return err
		}
		err = v.changeSlots(ctx, func(_ *Tx, m *Meta, slots []Slot) ([]Slot, Event, error) {
			detail := "the OS keyring"
			if m.Keyring {
				detail += ", written again"
			}
			m.Keyring = true
			return slots, Event{Action: "slot.add", Subject: "keyring", Detail: detail}, nil
		})
		if err != nil && !errors.Is(err, ErrUnsettled) && !m.Keyring {
			err = errors.Join(err, v.cfg.Keyring.Delete(context.WithoutCancel(ctx), v.key.id.String()))
		}
		return err
	})
}

// enterAndCompareAnchor is compareAnchor behind the gate. It accepts a rollback
// where the operator does.
func (v *Vault) enterAndCompareAnchor(ctx context.Context) error {
	err := func() error {
		if err := v.enter(ctx); err != nil {
			return err
		}
		defer v.leave()
		m, _, err := v.metaAndSlots(ctx)
		if err != nil {
			return err
		}
		return v.compareAnchor(ctx, m)
	}()
	if errors.Is(err, ErrRollback) {
		return v.acceptRollback(ctx)
	}
	return err
}

// RemoveKeyring takes the OS keyring away as a way in, with its items. Where the
// keyring is lost for good, it records just that, and returns the accounts of the
// items that may be left. Errors are those of [Vault.RemoveSlot].
func (v *Vault) RemoveKeyring(ctx context.Context) (left []string, err error) {
	// Nobody may write the anchor anew between its deletion and the commit.
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	if err := v.anchorLock.Exclusive(wait); err != nil {
		return nil, lockError(ctx, v.anchorLock, err)
	}
	defer v.anchorLock.Unlock()
	err = v.changing(ctx, func() error {
		m, _, err := v.metaAndSlots(ctx)
		if err != nil {
			return err
		}
		if !m.Keyring {
			return fmt.Errorf("%w: the OS keyring is no way into this vault", ErrNoSlot)
		}
		// Before the commit: a vault never says that its key is out of a keyring
		// that still has it, unless it is told so.
		key, account := v.key.id.String(), anchorAccount(m.VaultID)
		anchored := ""
		if v.cfg.Keyring != nil {
			anchored, _ = v.cfg.Keyring.Get(ctx, account)
		}
		for _, account := range []string{key, account} {
			if v.cfg.Keyring == nil || v.cfg.Keyring.Delete(ctx, account) != nil {
				left = append(left, account)
			}
		}
		err = v.changeSlots(ctx, func(_ *Tx, m *Meta, slots []Slot) ([]Slot, Event, error) {
			m.Keyring = false
			return slots, Event{Action: "slot.remove", Subject: "keyring", Detail: strings.Join(append([]string{"the OS keyring; left:"}, left...), " ")}, nil
		})
		if err == nil || errors.Is(err, ErrUnsettled) {
			v.mu.Lock()
			v.anchorProgress = anchorProgress{} // it is written no more
			v.mu.Unlock()
			return err
		}
		if v.cfg.Keyring != nil {
			ctx := context.WithoutCancel(ctx)
			line := v.key.line()
			defer wipe(line)
			err = errors.Join(err, v.cfg.Keyring.Set(ctx, key, string(line)))
			if anchored != "" {
				err = errors.Join(err, v.cfg.Keyring.Set(ctx, account, anchored))
			}
		}
		return err
	})
	return left, err
}
