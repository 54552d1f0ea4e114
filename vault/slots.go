package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
)

// A change of the slots is written to the table first, and then to the slots file, under one
// lock. After an interruption between the two, the next open writes the file.

// Recipients returns the recipient of every slot, for a backup, and the given others. The
// others must be of the vault's class, otherwise the error matches [ErrInvalid] or [ErrPlugin].
func (tx *Tx) Recipients(ctx context.Context, others ...string) ([]age.Recipient, error) {
	m, slots, err := tx.CheckedSlots(ctx)
	if err != nil {
		return nil, err
	}
	ui := tx.cfg.Plugins
	more, err := identity.Await(ctx, func() ([]Slot, error) { return parseRecipients(others, m.Class, ui) })
	if err != nil {
		return nil, err
	}
	var recipients []age.Recipient
	for _, s := range append(slots, more...) {
		r, err := identity.ParseRecipientWithin(ctx, s.Recipient, ui)
		if err != nil {
			return nil, fmt.Errorf("slot %s: %w", s.ID, err)
		}
		recipients = append(recipients, r)
	}
	return recipients, nil
}

// NewSlot describes an unlock method to add.
type NewSlot struct {
	Kind  SlotKind
	Label string // for people; "" for a default
	// Person is who the slot belongs to, such as "ops@example.org". What is done through it is
	// audited with the name. "": nobody.
	Person string

	// Recipient is for [SlotRecipient]; see [identity.ParseRecipient].
	Recipient string

	// Passphrase is for [SlotPassphrase]. WorkFactor is its scrypt work factor; 0 means
	// [identity.MinWorkFactor]. The caller wipes the passphrase.
	Passphrase []byte
	WorkFactor int

	// Files and Show receive the new identity of [SlotRecovery] or [SlotCredential], before the
	// slot is added. At least one of them is required. Show returns when the operator has the
	// identity. If the slot is not added after all, the files are removed again.
	Files []IdentityFile
	Show  func(context.Context, NewIdentity) error
}

// AddSlot adds an unlock method. When it returns nil, the slot is in the vault and in its slots
// file. It returns [ErrSlotExists] if the recipient already has a slot, [ErrFileExists],
// [ErrInvalid], [ErrPlugin], and the errors of [Vault.Update]; then there is no new slot. After
// [ErrUnsettled] the slot may be in the vault: then the next change or open writes the slots
// file.
func (v *Vault) AddSlot(ctx context.Context, n NewSlot) (Slot, error) {
	if err := v.changing(ctx, func() error { return nil }); err != nil { // before anything is made
		return Slot{}, err
	}
	if err := v.paths.checkOutputs(n.Files); err != nil {
		return Slot{}, err
	}
	var m Meta
	var slots []Slot
	err := v.View(ctx, func(tx *Tx) (err error) {
		if m, err = tx.Meta(ctx); err != nil {
			return err
		}
		slots, err = tx.Slots(ctx)
		return err
	})
	if err != nil {
		return Slot{}, err
	}
	s, identity, vouching, err := v.newSlot(ctx, n, m)
	if err != nil {
		return Slot{}, err
	}
	if err := notAmong(slots, s); err != nil {
		return Slot{}, err
	}
	undoHandOver := func() {}
	if identity != nil {
		if undoHandOver, err = handOver(ctx, v.cfg.fs(), *identity, n.Files, n.Show); err != nil {
			return Slot{}, err
		}
	}
	err = v.wrappedFor(ctx, &s, func() error {
		return v.changeSlots(ctx, func(tx *Tx, m *Meta, slots []Slot) ([]Slot, Event, error) {
			if err := notAmong(slots, s); err != nil {
				return nil, Event{}, err
			}
			if vouching != nil { // for the signer that is current now
				s.vouch = vouchFor(vouching, m.VaultID, m.Signer)
			}
			if s.Kind == SlotRecovery { // the new file or sheet names the signer
				if err := updateSheet(ctx, tx); err != nil {
					return nil, Event{}, err
				}
			}
			return append(slots, s), Event{Action: ActionAddSlot, Subject: s.ID, Detail: s.text()}, insertSlot(ctx, tx, s)
		})
	})
	if err != nil && !errors.Is(err, ErrUnsettled) {
		undoHandOver()
		return Slot{}, err
	}
	return s, err
}

// wrappedFor wraps the key for a slot and then runs fn under the write lock. It wraps before it
// takes the lock, because a plugin may take long. If a rotation came between, it wraps again.
func (v *Vault) wrappedFor(ctx context.Context, s *Slot, fn func() error) error {
	for {
		if err := v.enter(ctx); err != nil {
			return err
		}
		key := *v.key
		v.leave()
		err := s.wrap(ctx, &key, v.cfg.Plugins)
		key.Wipe()
		if err != nil {
			return err
		}
		rotated := false
		err = v.changing(ctx, func() error {
			if rotated = v.key.ID() != key.ID(); rotated {
				return nil
			}
			return fn()
		})
		if !rotated {
			return err
		}
	}
}

// notAmong returns [ErrSlotExists] if the recipient already has a slot.
func notAmong(slots []Slot, s Slot) error {
	for _, other := range slots {
		if other.Recipient == s.Recipient {
			return fmt.Errorf("%w: %s (slot %s)", ErrSlotExists, identity.Short(s.Recipient), other.ID)
		}
	}
	return nil
}

// newSlot makes a slot. It also returns the identity that opens the slot, if it must be handed
// over, and the key with which that identity vouches.
func (v *Vault) newSlot(ctx context.Context, n NewSlot, m Meta) (s Slot, _ *NewIdentity, vouching []byte, err error) {
	if strings.Contains(n.Person, ",") { // an actor in the audit log may have two parts
		return Slot{}, nil, nil, fmt.Errorf("%w: the person of a slot must not have a comma", ErrInvalid)
	}
	s = Slot{Kind: n.Kind, Label: auditText(n.Label, maxLabel), Person: auditText(n.Person, maxPerson)}
	if s.Label == "" && n.Kind != SlotRecipient {
		s.Label = string(n.Kind)
	}
	now := v.cfg.now()
	switch n.Kind {
	case SlotRecipient:
		recipient, comment := identity.CanonicalRecipient(n.Recipient)
		if s.Label == "" {
			s.Label = auditText(comment, maxLabel)
		}
		s.Recipient = recipient
		_, err := identity.Await(ctx, func() (any, error) { return nil, identity.CheckClass(recipient, m.Class, v.cfg.Plugins) })
		return newSlot(s, now), nil, nil, err
	case SlotPassphrase, SlotRecovery, SlotCredential:
	default:
		return Slot{}, nil, nil, fmt.Errorf("%w: there is no slot of kind %q", ErrInvalid, n.Kind)
	}
	made, err := newIdentity(m.Class)
	if err != nil {
		return Slot{}, nil, nil, err
	}
	vouching = made.vouchKey()
	made.Kind, made.VaultID, made.Path, made.Signer, made.Created = n.Kind, m.VaultID, v.paths.db, m.Signer, now
	s.Recipient = made.Recipient
	if n.Kind == SlotPassphrase {
		if n.WorkFactor == 0 {
			n.WorkFactor = v.cfg.minWorkFactor()
		}
		if n.WorkFactor < v.cfg.minWorkFactor() || n.WorkFactor > identity.MaxWorkFactor {
			return Slot{}, nil, nil, fmt.Errorf("%w: a work factor must be %d to %d", ErrInvalid, identity.MinWorkFactor, identity.MaxWorkFactor)
		}
		if s.Identity, err = identity.Lock(made.Identity, n.Passphrase, n.WorkFactor); err != nil {
			return Slot{}, nil, nil, err
		}
		return newSlot(s, now), nil, vouching, nil
	}
	if len(n.Files) == 0 && n.Show == nil {
		return Slot{}, nil, nil, fmt.Errorf("%w: a file or a display is needed for the identity of the slot", ErrInvalid)
	}
	return newSlot(s, now), &made, vouching, nil
}

// RemoveSlot removes an unlock method, by the slot's id. The key does not change: a reader who
// unwrapped it before still has it, until [Vault.Rotate]. The last recovery or recipient slot
// is not removed: [ErrLastSlot]. Other errors are those of [Vault.AddSlot].
func (v *Vault) RemoveSlot(ctx context.Context, id string) error {
	remove := func(tx *Tx, _ *Meta, slots []Slot) ([]Slot, Event, error) {
		var gone *Slot
		var left []Slot
		durable := false
		for i, s := range slots {
			if s.ID == id {
				gone = &slots[i]
				continue
			}
			left = append(left, s)
			durable = durable || s.Durable()
		}
		switch {
		case gone == nil:
			return nil, Event{}, fmt.Errorf("%w: %q", ErrNoSlot, id)
		case !durable:
			return nil, Event{}, fmt.Errorf("%w: %s", ErrLastSlot, id)
		}
		return left, Event{Action: ActionRemoveSlot, Subject: id, Detail: gone.text()}, deleteSlot(ctx, tx, id)
	}
	return v.changing(ctx, func() error { return v.changeSlots(ctx, remove) })
}

// changeSlots runs change, which writes to the table of slots or to meta, and then writes the
// slots file. change gets the present slots and returns the new ones. The caller holds the
// write lock.
func (v *Vault) changeSlots(ctx context.Context, change func(tx *Tx, m *Meta, slots []Slot) ([]Slot, Event, error)) error {
	err := v.update(ctx, func(tx *Tx) error {
		m, err := tx.Meta(ctx)
		if err != nil {
			return err
		}
		slots, err := tx.Slots(ctx)
		if err != nil {
			return err
		}
		slots, event, err := change(tx, &m, slots)
		if err != nil {
			return err
		}
		m.SlotsSeq++
		if err := updateMeta(ctx, tx, m); err != nil {
			return err
		}
		e := newEntry(m, slots, v.key.Check(), stateCurrent)
		if err := checkSlotsFile([]entry{e, e}); err != nil { // a rotation needs room for two entries
			return err
		}
		return tx.Audit(ctx, event)
	})
	if err != nil {
		return err
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	if err := v.render(ctx); err != nil {
		v.setUnsettled(err)
		return fmt.Errorf("%w, so the change is only in the database until the next change or open: %w", ErrUnsettled, err)
	}
	return nil
}

// render writes the slots file from the table. It keeps the entries that wait for a keyring.
// The caller holds the write lock.
func (v *Vault) render(ctx context.Context) error {
	m, slots, err := v.metaAndSlots(ctx)
	if err != nil {
		return err
	}
	entries := []entry{newEntry(m, slots, v.key.Check(), stateCurrent)}
	file, err := readSlotsFile(v.paths.slots)
	if err != nil {
		return err
	}
	for _, e := range file.entries {
		if e.KeyID != m.KeyID && file.find(m.KeyID) != nil {
			entries = append(entries, e)
		}
	}
	return v.writeSlotsFile(entries)
}
