package vault

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"crypto/rand"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
)

// SlotKind says what a slot is for.
type SlotKind string

// The kinds of slots.
const (
	SlotRecovery   SlotKind = "recovery"   // the identity made for the operator to keep
	SlotRecipient  SlotKind = "recipient"  // an operator's own age or SSH key
	SlotPassphrase SlotKind = "passphrase" // an identity kept in the slot, under a passphrase
	SlotCredential SlotKind = "credential" // a systemd credential
)

// Slot is a way in besides the keyring: the key line, encrypted to one
// recipient with age.
type Slot struct {
	ID        string // 16 hex digits
	Kind      SlotKind
	Label     string
	Recipient string // as age or ssh writes it
	Identity  string // a passphrase slot's identity, armored age; else ""
	Created   time.Time

	wrapped string // armored age; "" until wrapped for a key
}

// Durable reports whether the slot counts towards the one that a vault must
// have: a forgotten passphrase or a lost machine takes the others with it.
func (s Slot) Durable() bool { return s.Kind == SlotRecovery || s.Kind == SlotRecipient }

// newSlot makes a slot that is not wrapped yet.
func newSlot(kind SlotKind, label, recipient string, now time.Time) Slot {
	var id [8]byte
	rand.Read(id[:])
	return Slot{ID: hex.EncodeToString(id[:]), Kind: kind, Label: label, Recipient: recipient, Created: now}
}

// maxRecipient caps a recipient's length: a post-quantum one has 1959
// characters, an RSA key of 16384 bits 2800.
const maxRecipient = 4096

// ParseRecipient parses an age recipient ("age1...", "age1pq1...") or an SSH
// public key ("ssh-ed25519 ...", "ssh-rsa ..."), and tells its class. The error
// matches [ErrInvalid].
func ParseRecipient(s string) (age.Recipient, Class, error) {
	if len(s) > maxRecipient {
		return nil, "", fmt.Errorf("%w: a recipient has at most %d characters", ErrInvalid, maxRecipient)
	}
	switch {
	case strings.HasPrefix(s, "age1pq1"):
		r, err := age.ParseHybridRecipient(s)
		if err != nil {
			return nil, "", fmt.Errorf("%w: recipient %q: %w", ErrInvalid, abbreviate(s), err)
		}
		return r, PostQuantum, nil
	case strings.HasPrefix(s, "age1"):
		r, err := age.ParseX25519Recipient(s)
		if err != nil {
			return nil, "", fmt.Errorf("%w: recipient %q: %w", ErrInvalid, abbreviate(s), err)
		}
		return r, Classic, nil
	case strings.HasPrefix(s, "ssh-"):
		r, err := agessh.ParseRecipient(s)
		if err != nil {
			return nil, "", fmt.Errorf("%w: recipient %q: %w", ErrInvalid, abbreviate(s), err)
		}
		return r, Classic, nil
	case strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-"), strings.Contains(s, "PRIVATE KEY"):
		return nil, "", fmt.Errorf("%w: that is a private key, where a recipient (a public key) is needed", ErrInvalid)
	}
	return nil, "", fmt.Errorf("%w: recipient %q: not age1..., ssh-ed25519 or ssh-rsa", ErrInvalid, abbreviate(s))
}

// canonicalRecipient drops an SSH key's comment and odd white space, so that
// one key has one spelling; the comment is returned as a label.
func canonicalRecipient(s string) (recipient, label string) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "ssh-") {
		return s, ""
	}
	fields := strings.Fields(s)
	if len(fields) < 2 {
		return s, ""
	}
	return fields[0] + " " + fields[1], strings.Join(fields[2:], " ")
}

// abbreviate shortens a recipient for a message.
func abbreviate(s string) string {
	if len(s) <= 40 {
		return s
	}
	return strings.ToValidUTF8(s[:40], "") + "..."
}

// ParseRecipients parses recipients that must all be of one class, and returns
// them as slots to be: kind recipient, labelled by an SSH key's comment. It
// refuses the same recipient twice. The error matches [ErrInvalid].
func ParseRecipients(recipients []string, class Class) ([]Slot, error) {
	var slots []Slot
	seen := map[string]bool{}
	for _, text := range recipients {
		recipient, label := canonicalRecipient(text)
		_, c, err := ParseRecipient(recipient)
		if err != nil {
			return nil, err
		}
		if c != class {
			return nil, fmt.Errorf("%w: recipient %q is %s, the vault is %s: one vault has recipients of one class", ErrInvalid, abbreviate(recipient), c, class)
		}
		if seen[recipient] {
			return nil, fmt.Errorf("%w: recipient %q is given twice", ErrInvalid, abbreviate(recipient))
		}
		seen[recipient] = true
		slots = append(slots, Slot{Kind: SlotRecipient, Label: auditText(label, 256), Recipient: recipient})
	}
	return slots, nil
}

// wrap encrypts the key line to the slot's recipient.
func (s *Slot) wrap(k *Key) error {
	recipient, _, err := ParseRecipient(s.Recipient)
	if err != nil {
		return err
	}
	var out strings.Builder
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, recipient)
	if err != nil {
		return fmt.Errorf("wrap key for %q: %w", abbreviate(s.Recipient), err)
	}
	line := k.line()
	defer wipe(line)
	if _, err := w.Write(line); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := a.Close(); err != nil {
		return err
	}
	s.wrapped = out.String()
	return nil
}

// unwrap decrypts the slot's key line. When none of the identities is the
// slot's, the error is an [*age.NoIdentityMatchError].
func (s Slot) unwrap(identities []age.Identity) (*Key, error) {
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(s.wrapped)), identities...)
	if err != nil {
		return nil, err
	}
	line, err := io.ReadAll(io.LimitReader(r, int64(keyLineLen)+1))
	defer wipe(line)
	if err != nil {
		return nil, err
	}
	return parseKeyLine(line)
}

// unwrapAny tries the identities on each slot.
func unwrapAny(slots []Slot, identities []age.Identity) (*Key, error) {
	var broken error
	for _, s := range slots {
		k, err := s.unwrap(identities)
		if err == nil {
			return k, nil
		}
		if _, none := errors.AsType[*age.NoIdentityMatchError](err); !none {
			broken = fmt.Errorf("slot %s: %w", s.ID, err)
		}
	}
	if broken != nil {
		return nil, fmt.Errorf("%w: no slot opens, and one is unreadable: %w", ErrWrongKey, broken)
	}
	return nil, fmt.Errorf("%w: the identity opens none of the vault's %d slots", ErrWrongKey, len(slots))
}

// Slots returns the vault's slots: recovery first, then by age.
func (tx *Tx) Slots(ctx context.Context) ([]Slot, error) {
	slots, err := selectSlots(ctx, tx)
	if err != nil {
		return nil, fmt.Errorf("read slots: %w", err)
	}
	return slots, nil
}

// Recipients returns every slot's recipient, for a backup.
func (tx *Tx) Recipients(ctx context.Context) ([]age.Recipient, error) {
	slots, err := tx.Slots(ctx)
	if err != nil {
		return nil, err
	}
	var recipients []age.Recipient
	for _, s := range slots {
		r, _, err := ParseRecipient(s.Recipient)
		if err != nil {
			return nil, fmt.Errorf("slot %s: %w", s.ID, err)
		}
		recipients = append(recipients, r)
	}
	return recipients, nil
}

type slotJSON struct {
	ID        string   `json:"id"`
	Kind      SlotKind `json:"kind"`
	Label     string   `json:"label"`
	Recipient string   `json:"recipient"`
	Identity  *string  `json:"identity"`
	Created   string   `json:"created"`
}

// MarshalJSON gives the slot as a backup's slots.jsonl and `status --json` hold
// it: without the wrapped key.
func (s Slot) MarshalJSON() ([]byte, error) {
	return MarshalJSON(slotJSON{
		ID:        s.ID,
		Kind:      s.Kind,
		Label:     s.Label,
		Recipient: s.Recipient,
		Identity:  nullable(s.Identity),
		Created:   FormatTime(s.Created),
	})
}

// UnmarshalJSON parses what MarshalJSON gives.
func (s *Slot) UnmarshalJSON(data []byte) error {
	var j slotJSON
	if err := decodeStrict(bytes.NewReader(data), &j); err != nil {
		return err
	}
	created, err := ParseTime(j.Created)
	if err != nil {
		return err
	}
	slot := Slot{ID: j.ID, Kind: j.Kind, Label: j.Label, Recipient: j.Recipient, Identity: deref(j.Identity), Created: created}
	if err := slot.validate(); err != nil {
		return err
	}
	*s = slot
	return nil
}

// validate checks what a file said of a slot.
func (s Slot) validate() error {
	var id [8]byte
	switch {
	case !parseHex(id[:], s.ID):
		return fmt.Errorf("%w: a slot's id has 16 lower-case hex digits", ErrInvalid)
	case s.Kind == "" || len(s.Kind) > 32:
		return fmt.Errorf("%w: slot %s has no kind", ErrInvalid, s.ID)
	case s.Recipient == "" || len(s.Recipient) > maxRecipient:
		return fmt.Errorf("%w: slot %s has no recipient", ErrInvalid, s.ID)
	case s.Label != auditText(s.Label, 256):
		return fmt.Errorf("%w: the label of slot %s is too long or has control characters", ErrInvalid, s.ID)
	}
	return nil
}
