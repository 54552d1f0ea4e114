package vault

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// SlotKind says what kind of recipient a slot has.
type SlotKind string

// The kinds of slots.
const (
	SlotRecovery   SlotKind = "recovery"   // the identity made for the operator to keep
	SlotRecipient  SlotKind = "recipient"  // an operator's own age or SSH key
	SlotPassphrase SlotKind = "passphrase" // an identity kept in the slot, under a passphrase
	SlotCredential SlotKind = "credential" // an identity that a service finds: a systemd credential, a file
)

// Slot is an unlock method besides the keyring: the key line, encrypted with age to one
// recipient.
type Slot struct {
	ID        string // 16 hex digits
	Kind      SlotKind
	Label     string
	Person    string // who it belongs to: what is done through it is audited with the name; "": nobody
	Recipient string // as age or ssh writes it
	Identity  string // a passphrase slot's identity, armored age; otherwise ""
	Created   time.Time

	wrapped string // armored age; "" until a key is wrapped
	// vouch says that the recipient's identity vouches for the vault's signer, in hex. It is ""
	// if the identity was never at hand. See [vouchFor].
	vouch string
}

// Durable reports whether the slot counts as the one recovery or recipient slot that a vault
// must have. Passphrase and credential slots do not count: a passphrase can be forgotten, and a
// credential is lost with its machine.
func (s Slot) Durable() bool { return s.Kind == SlotRecovery || s.Kind == SlotRecipient }

// Vouched reports whether the slot's own identity vouches for the vault's signer, or for an
// earlier one. If not, the operator is asked when the slot is first used.
func (s Slot) Vouched() bool { return s.vouch != "" }

// newSlot gives a slot an id. The slot is not wrapped yet.
func newSlot(s Slot, now time.Time) Slot {
	var id [8]byte
	rand.Read(id[:])
	s.ID, s.Created = hex.EncodeToString(id[:]), now
	return s
}

// The longest label and the longest name of a person, in bytes.
const (
	maxLabel  = 256
	maxPerson = 128
)

// wrap wraps the key for the slot's recipient, until ctx ends. An error of a plugin matches
// [ErrPlugin].
func (s *Slot) wrap(ctx context.Context, k *Key, ui *plugin.ClientUI) error {
	wrapped, err := k.Wrap(ctx, s.Recipient, ui)
	if err != nil {
		return fmt.Errorf("wrap key for slot %s, %q: %w", s.ID, identity.Short(s.Recipient), err)
	}
	s.wrapped = wrapped
	return nil
}

// unwrap returns the slot's key. If no identity belongs to the slot, the error is an
// [*age.NoIdentityMatchError].
func (s Slot) unwrap(identities ...age.Identity) (*Key, error) {
	return rootkey.Unwrap(s.wrapped, identities...)
}

// unwrapAny tries each identity on each slot, and returns which identity opened which slot.
func unwrapAny(slots []Slot, identities []age.Identity) (*Key, opener, error) {
	var broken error
	for _, s := range slots {
		for _, id := range identities {
			k, err := s.unwrap(id)
			if err == nil {
				return k, opener{s, s.whichOf(id)}, nil
			}
			if _, none := errors.AsType[*age.NoIdentityMatchError](err); !none {
				broken = fmt.Errorf("slot %s: %w", s.ID, err)
			}
		}
	}
	if err := identity.Unopened(identities); err != nil {
		return nil, opener{}, err
	}
	if broken != nil {
		return nil, opener{}, fmt.Errorf("%w: no slot opens, and one is unreadable: %w", ErrWrongKey, broken)
	}
	return nil, opener{}, fmt.Errorf("%w: it opens none of the vault's %d slots", ErrWrongKey, len(slots))
}

// whichOf returns the identity that opens the slot, if id holds several under a passphrase.
func (s Slot) whichOf(id age.Identity) age.Identity {
	for _, inner := range identity.Opened(id) {
		if k, err := s.unwrap(inner); err == nil {
			k.Wipe()
			return inner
		}
	}
	return id
}

// unwrapByPassphrase tries the passphrase on each passphrase slot. If it opens none, it returns
// ErrPassphrase.
func unwrapByPassphrase(ctx context.Context, slots []Slot, passphrase []byte) (*Key, opener, error) {
	failed := identity.ErrPassphrase
	for _, s := range slots {
		identities, err := identity.Unlock(ctx, []byte(s.Identity), passphrase, identity.Options{})
		if err == nil {
			var k *Key
			if k, err = s.unwrap(identities...); err == nil {
				return k, opener{s, identities[0]}, nil
			}
		}
		if !errors.Is(err, identity.ErrPassphrase) {
			failed = fmt.Errorf("%w: slot %s: %w", ErrWrongKey, s.ID, err)
		}
	}
	return nil, opener{}, failed
}

type slotJSON struct {
	ID        string   `json:"id"`
	Kind      SlotKind `json:"kind"`
	Label     string   `json:"label"`
	Person    *string  `json:"person"`
	Recipient string   `json:"recipient"`
	Identity  *string  `json:"identity"`
	Created   string   `json:"created"`
}

// MarshalJSON returns the slot as a backup's slots.jsonl and `status --json` show it: without
// the wrapped key.
func (s Slot) MarshalJSON() ([]byte, error) {
	return wire.Marshal(slotJSON{
		ID:        s.ID,
		Kind:      s.Kind,
		Label:     s.Label,
		Person:    wire.Nullable(s.Person),
		Recipient: s.Recipient,
		Identity:  wire.Nullable(s.Identity),
		Created:   wire.FormatTime(s.Created),
	})
}

// UnmarshalJSON parses what MarshalJSON returns.
func (s *Slot) UnmarshalJSON(data []byte) error {
	var j slotJSON
	if err := wire.Unmarshal(data, &j); err != nil {
		return err
	}
	created, err := wire.ParseTime(j.Created)
	if err != nil {
		return err
	}
	slot := Slot{ID: j.ID, Kind: j.Kind, Label: j.Label, Person: wire.Text(j.Person), Recipient: j.Recipient, Identity: wire.Text(j.Identity), Created: created}
	if err := slot.validate(); err != nil {
		return err
	}
	*s = slot
	return nil
}

// validate checks a slot that was read from a file.
func (s Slot) validate() error {
	var id [8]byte
	switch {
	case !wire.ParseHex(id[:], s.ID):
		return fmt.Errorf("%w: a slot's id has 16 lower-case hex digits", ErrInvalid)
	case s.Kind == "" || string(s.Kind) != auditText(string(s.Kind), 32):
		return fmt.Errorf("%w: slot %s has no kind", ErrInvalid, s.ID)
	case s.Recipient == "" || s.Recipient != auditText(s.Recipient, identity.MaxRecipient):
		return fmt.Errorf("%w: slot %s has no recipient", ErrInvalid, s.ID)
	case (s.Kind == SlotPassphrase) != (s.Identity != "") || len(s.Identity) > identity.MaxFile:
		return fmt.Errorf("%w: slot %s: a passphrase slot must have an identity, and any other slot must have none", ErrInvalid, s.ID)
	case s.Label != auditText(s.Label, maxLabel):
		return fmt.Errorf("%w: the label of slot %s is too long or has control characters", ErrInvalid, s.ID)
	case s.Person != auditText(s.Person, maxPerson) || strings.Contains(s.Person, ","):
		return fmt.Errorf("%w: the person of slot %s is too long, or has a comma or control characters", ErrInvalid, s.ID)
	}
	return nil
}

// parseRecipients parses recipients, which must all be of one class. It returns them as slots
// of kind recipient, with the comment of an SSH key as label. It refuses a recipient that is
// given twice. The error matches [ErrInvalid] or [ErrPlugin].
func parseRecipients(recipients []string, class identity.Class, ui *plugin.ClientUI) ([]Slot, error) {
	var slots []Slot
	seen := map[string]bool{}
	for _, text := range recipients {
		recipient, label := identity.CanonicalRecipient(text)
		if err := identity.CheckClass(recipient, class, ui); err != nil {
			return nil, err
		}
		if seen[recipient] {
			return nil, fmt.Errorf("%w: recipient %q is given twice", ErrInvalid, identity.Short(recipient))
		}
		seen[recipient] = true
		slots = append(slots, Slot{Kind: SlotRecipient, Label: auditText(label, maxLabel), Recipient: recipient})
	}
	return slots, nil
}

// opener is the identity that opened the vault, and its slot.
type opener struct {
	slot     Slot
	identity age.Identity
}

// text describes a slot for the audit log.
func (s Slot) text() string {
	text := string(s.Kind) + " " + identity.Short(s.Recipient)
	if s.Label != "" {
		text += " " + s.Label
	}
	if s.Person != "" {
		text += " for " + s.Person
	}
	return text
}

// FindSlot finds the slot that a person named: by its id, by the first four or more digits of
// the id, or by its label. The error matches [ErrNoSlot], or [ErrInvalid] if several slots
// match.
func FindSlot(slots []Slot, name string) (Slot, error) {
	var found []Slot
	for _, s := range slots {
		if s.ID == name {
			return s, nil
		}
		if s.Label == name && name != "" || len(name) >= 4 && strings.HasPrefix(s.ID, name) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return Slot{}, fmt.Errorf("%w: %q", ErrNoSlot, name)
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, s := range found {
		ids = append(ids, s.ID)
	}
	return Slot{}, fmt.Errorf("%w: %q matches %d slots: give one of the ids %s", ErrInvalid, name, len(found), strings.Join(ids, ", "))
}
