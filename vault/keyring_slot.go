package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// The OS keyring as an unlock method, besides the slots.

// AddKeyring makes the OS keyring an unlock method. If it is one already, it writes the item
// again, as after a loss or on a new desktop. It works for any open vault. It returns
// [ErrRollback] if the keyring's anchor is ahead of the vault, an error of package keyring, and
// the errors of [Vault.AddSlot].
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
		// Before the commit: a vault must never say that its key is in the keyring when it is
		// not.
		line := v.key.Line()
		defer wipe(line)
		if err := v.cfg.Keyring.Set(ctx, v.key.ID().String(), string(line)); err != nil {
			return err
		}
		err = v.changeSlots(ctx, func(_ *Tx, m *Meta, slots []Slot) ([]Slot, Event, error) {
			detail := "the OS keyring"
			if m.Keyring {
				detail += ", written again"
			}
			m.Keyring = true
			return slots, Event{Action: ActionAddSlot, Subject: "keyring", Detail: detail}, nil
		})
		if err != nil && !errors.Is(err, ErrUnsettled) && !m.Keyring {
			err = errors.Join(err, v.cfg.Keyring.Delete(context.WithoutCancel(ctx), v.key.ID().String()))
		}
		return err
	})
}

// RemoveKeyring removes the OS keyring as an unlock method, and deletes its items. If the
// keyring is lost for good, it only records that. It returns the accounts of the items that may
// be left. Errors are those of [Vault.RemoveSlot].
func (v *Vault) RemoveKeyring(ctx context.Context) (left []string, err error) {
	// No process may write the anchor again between its deletion and the commit.
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
			return fmt.Errorf("%w: the OS keyring is not an unlock method of this vault", ErrNoSlot)
		}
		// Before the commit: a vault must never say that its key is not in the keyring while it
		// is, unless the caller learns of it.
		key, account := v.key.ID().String(), anchorAccount(m.VaultID)
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
			return slots, Event{Action: ActionRemoveSlot, Subject: "keyring", Detail: strings.Join(append([]string{"the OS keyring; left:"}, left...), " ")}, nil
		})
		if err == nil || errors.Is(err, ErrUnsettled) {
			v.mu.Lock()
			v.anchorProgress = anchorProgress{} // from now on no anchor is written
			v.mu.Unlock()
			return err
		}
		if v.cfg.Keyring != nil {
			ctx := context.WithoutCancel(ctx)
			line := v.key.Line()
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
