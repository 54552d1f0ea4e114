package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newSlot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "slot",
		Short: "The unlock methods of the vault: list, add, remove",
		Long: `A slot is an unlock method besides the OS keyring: it holds the vault's key, encrypted
to one recipient. Each unlock method alone opens the whole vault. If you lose one, you
lose nothing while another is left.`,
	}
	cmd.AddCommand(newSlotList(a), newSlotAdd(a), newSlotRemove(a))
	return cmd
}

// keyringSlot stands for the OS keyring in lists: an unlock method that is not a slot.
func keyringSlot(m vault.Meta) vault.Slot {
	return vault.Slot{ID: keyringName, Kind: keyringName, Created: m.KeyCreated}
}

const keyringName = "keyring"

// slotText names a slot for a person.
func slotText(s vault.Slot) string {
	return backup.Unlock{Kind: string(s.Kind), Label: s.Label, Recipient: s.Recipient}.String()
}

func newSlotList(a *app) *cobra.Command {
	var o tableOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the unlock methods; `rbee-vault doctor` tests them",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runSlotList(cmd.Context(), a, o) },
	}
	o.register(cmd, slotHeaders...)
	return cmd
}

var slotHeaders = []string{"ID", "KIND", "LABEL", "CREATED", "RECIPIENT", "PERSON"}

func runSlotList(ctx context.Context, a *app, o tableOptions) error {
	t, err := o.table(slotHeaders)
	if err != nil {
		return err
	}
	var m vault.Meta
	var slots []vault.Slot
	err = a.withVault(ctx, func(v *vault.Vault) (err error) {
		m, slots, err = metaAndSlots(ctx, v)
		return err
	})
	if err != nil {
		return err
	}
	if m.Keyring {
		slots = append(slots, keyringSlot(m))
	}
	if a.json {
		return objects(a.ui, slots)
	}
	for _, s := range slots {
		t.row(s.ID, s.Kind, s.Label, day(s.Created), s.Recipient, s.Person)
	}
	a.ui.table(t)
	return nil
}

func metaAndSlots(ctx context.Context, v *vault.Vault) (m vault.Meta, slots []vault.Slot, err error) {
	err = v.View(ctx, func(tx *vault.Tx) (err error) {
		if m, err = tx.Meta(ctx); err != nil {
			return err
		}
		slots, err = tx.Slots(ctx)
		return err
	})
	return m, slots, err
}

type removedJSON struct {
	Removed vault.Slot `json:"removed"`
	Left    []string   `json:"left_in_keyring"`
	Opens   *string    `json:"still_opens_backups"` // "1-5, 7"; null: none
}

func newSlotRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID|LABEL|keyring",
		Short: "Remove an unlock method",
		Long: `Remove an unlock method by its id, the first four or more digits of its id, or its
label. The last recovery or recipient slot cannot be removed. "keyring" removes the OS
keyring, even if it is lost for good.

The key of the vault does not change. Anybody who has used that unlock method, or who
has a copy of the slots file, may still have the key. ` + "`rbee-vault rotate`" + ` changes it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runSlotRemove(cmd.Context(), a, args[0]) },
	}
}

func runSlotRemove(ctx context.Context, a *app, name string) error {
	return a.withVault(ctx, func(v *vault.Vault) error {
		gone, opensBy, err := findRemovable(ctx, v, name)
		if err != nil {
			return err
		}
		if err := a.ui.confirm(ctx, fmt.Sprintf("Remove %s? The vault then opens by: %s.", slotText(gone), opensBy)); err != nil {
			return err
		}
		var left []string
		if gone.ID == keyringName {
			left, err = v.RemoveKeyring(ctx)
		} else {
			err = v.RemoveSlot(ctx, gone.ID)
		}
		if err != nil {
			return err
		}
		opens, err := stillOpens(ctx, v, gone.Recipient)
		if err != nil {
			return err
		}
		if err := showRemoved(a, gone, left, opens); err != nil {
			return err
		}
		if err := a.offerRotation(ctx, v); err != nil {
			return err
		}
		if len(left) > 0 {
			return errPartial
		}
		return nil
	})
}

// findRemovable finds the slot, or the keyring, that is to be removed. opensBy says what
// opens the vault after that. The last durable slot is refused here, before anything is
// asked.
func findRemovable(ctx context.Context, v *vault.Vault, name string) (gone vault.Slot, opensBy string, err error) {
	m, slots, err := metaAndSlots(ctx, v)
	if err != nil {
		return gone, "", err
	}
	keyring := m.Keyring
	switch {
	case name != keyringName:
		if gone, err = vault.FindSlot(slots, name); errors.Is(err, vault.ErrNoSlot) {
			var names []string
			for _, s := range slots {
				names = append(names, s.Label, s.ID)
			}
			err = withSuggestion(err, name, names, "List the slots: rbee-vault slot list")
		}
		if err != nil {
			return gone, "", err
		}
	case !m.Keyring:
		return gone, "", fmt.Errorf("%w: the OS keyring is not an unlock method of this vault", vault.ErrNoSlot)
	default:
		gone, keyring = keyringSlot(m), false
	}
	remaining := slices.DeleteFunc(slots, func(s vault.Slot) bool { return s.ID == gone.ID })
	if !slices.ContainsFunc(remaining, vault.Slot.Durable) {
		return gone, "", fmt.Errorf("%w: %s", vault.ErrLastSlot, gone.ID)
	}
	return gone, vault.UnlockMethods(remaining, keyring), nil
}

// showRemoved prints what was removed; left are the keyring items that are still there, and
// opens are the backups that the removed slot's identity still opens.
func showRemoved(a *app, gone vault.Slot, left []string, opens string) error {
	if a.json {
		if err := a.ui.object(removedJSON{gone, notNil(left), wire.Nullable(opens)}); err != nil {
			return err
		}
	}
	a.ui.info("Removed: %s.", slotText(gone))
	if len(left) > 0 {
		a.ui.warn("the keyring did not answer: when it does, remove these items from it (service rbee-vault): %s", strings.Join(left, ", "))
	}
	if opens != "" {
		a.ui.info("It still opens these backups: %s. Keep them away from whoever has it, or prune them.", opens)
	}
	a.ui.info(`The vault's key has not changed: anybody who used that unlock method may still have the
key. To change it: rbee-vault rotate`)
	return nil
}

// offerRotation asks whether to rotate. It uses the open vault, because the unlock method
// that opened it may be the one that was removed.
func (a *app) offerRotation(ctx context.Context, v *vault.Vault) error {
	if !a.interactive() || a.yes || a.json {
		return nil
	}
	err := a.ui.confirm(ctx, "Rotate now?")
	if errors.Is(err, errDeclined) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.rotate(ctx, v)
}
