package vault

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/rbee-keeper/rbee-vault/identity"
)

// Offer is a secret that the operator offers to try.
type Offer struct {
	Name       string // for messages
	Identities []age.Identity
}

// examineUnlockMethods tries every unlock method that can be tried: the keyring, and each slot
// with what is offered. For the other slots it checks that their secret could open them.
func (c Config) examineUnlockMethods(ctx context.Context, e entry, offers []Offer) []Finding {
	found := []Finding{c.examineKeyringItem(ctx, e)}
	if c.CredentialsDir != "" {
		identities, err := readCredential(ctx, c)
		if err != nil {
			found = append(found, failed(CheckCredential, "", err))
		} else if len(identities) > 0 {
			offers = append(offers, Offer{"credential " + CredentialName, identities})
		}
	}
	openedBy := map[string][]string{}
	for _, o := range offers {
		opened, err := o.open(e)
		for _, id := range opened {
			openedBy[id] = append(openedBy[id], o.Name)
		}
		if err != nil {
			found = append(found, failed(CheckOffered, "", fmt.Errorf("%s: %w", o.Name, err)))
		}
	}
	if c.ByPassphrase && len(offers) == 0 && len(e.passphraseSlots()) > 0 { // else the passphrase is that of an identity
		err := identity.AskPassphrase(ctx, c.Passphrase, "the vault", func(passphrase []byte) error {
			k, by, err := unwrapByPassphrase(ctx, e.passphraseSlots(), passphrase)
			if err == nil {
				k.Wipe()
				openedBy[by.slot.ID] = append(openedBy[by.slot.ID], "the passphrase")
			}
			return err
		})
		if err != nil {
			found = append(found, failed(CheckOffered, "", err))
		}
	}
	for _, s := range e.Slots {
		name := fmt.Sprintf("slot %s (%s)", s.ID, s.text())
		switch err := s.inspect(); {
		case err != nil && len(openedBy[s.ID]) == 0:
			found = append(found, failed(CheckSlots, "rbee-vault slot remove "+s.ID, fmt.Errorf("%s: %w", name, err)))
		case len(openedBy[s.ID]) > 0:
			found = append(found, okay(CheckSlots, "%s opens by %s", name, strings.Join(openedBy[s.ID], ", ")))
		default:
			found = append(found, okay(CheckSlots, "%s can be read; its secret was not offered", name))
		}
	}
	return found
}

// examineKeyringItem checks that the keyring has the entry's key, if it should have it.
func (c Config) examineKeyringItem(ctx context.Context, e entry) Finding {
	switch {
	case !e.Keyring:
		f := okay(CheckKeyringItem, "none: the keyring is not an unlock method of this vault")
		f.Unused = true
		return f
	case c.Keyring == nil:
		return warning(CheckKeyringItem, "", "not checked: there is no keyring")
	}
	c.Identities, c.ByPassphrase, c.CredentialsDir = nil, false, ""
	u, err := unlock(ctx, c, e.KeyID, slotsFile{data: []byte{}, entries: []entry{e}})
	switch {
	case err == nil:
		u.key.Wipe()
		return okay(CheckKeyringItem, "%s opens the vault", e.KeyID)
	case errors.Is(err, ErrWrongKey):
		return failed(CheckKeyringItem, "rbee-vault slot add keyring --identity FILE", err)
	}
	return failed(CheckKeyringItem, "", err)
}

// open returns the ids of the entry's slots that the offer opens. The error says why there are
// none.
func (o Offer) open(e entry) (opened []string, _ error) {
	var broken error
	for _, s := range e.Slots {
		k, err := s.unwrap(o.Identities...)
		switch _, none := errors.AsType[*age.NoIdentityMatchError](err); {
		case err == nil && k.ID() == e.KeyID && k.Check() == e.Check:
			k.Wipe()
			opened = append(opened, s.ID)
		case err == nil:
			broken = fmt.Errorf("%w: slot %s holds another key", ErrDamaged, s.ID)
		case !none:
			broken = fmt.Errorf("slot %s: %w", s.ID, err)
		}
	}
	if len(opened) > 0 {
		return opened, nil
	}
	if locked := identity.Unopened(o.Identities); locked != nil {
		return nil, locked
	}
	if broken != nil {
		return nil, fmt.Errorf("%w: %w", ErrWrongKey, broken)
	}
	return nil, fmt.Errorf("%w: it opens none of the %d slots", ErrWrongKey, len(e.Slots))
}

// inspect checks what a slot shows without its secret.
func (s Slot) inspect() error {
	if err := s.validate(); err != nil {
		return err
	}
	r, err := identity.ParseRecipient(s.Recipient, nil)
	if err != nil {
		return err
	}
	if name := identity.PluginName(r); name != "" {
		if _, err := exec.LookPath("age-plugin-" + name); err != nil {
			return fmt.Errorf("%w: age-plugin-%s is not installed here, so neither rotate nor backup works", ErrPlugin, name)
		}
	}
	if _, err := stanzasOf(s.wrapped); err != nil {
		return fmt.Errorf("%w: its key is unreadable: %w", ErrDamaged, err)
	}
	if s.Kind != SlotPassphrase {
		return nil
	}
	stanzas, err := stanzasOf(s.Identity)
	if err != nil || len(stanzas) != 1 || stanzas[0].Type != "scrypt" || len(stanzas[0].Args) != 2 {
		return fmt.Errorf("%w: its identity is not under a passphrase", ErrDamaged)
	}
	if n, err := strconv.Atoi(stanzas[0].Args[1]); err != nil || n > identity.MaxWorkFactor {
		return fmt.Errorf("%w: its passphrase needs a work factor of %s, which is over %d", ErrDamaged, stanzas[0].Args[1], identity.MaxWorkFactor)
	}
	return nil
}

// stanzasOf reads the header of armored age.
func stanzasOf(armored string) ([]*age.Stanza, error) {
	var seen headerReader
	_, err := age.Decrypt(armor.NewReader(strings.NewReader(armored)), &seen)
	if _, none := errors.AsType[*age.NoIdentityMatchError](err); !none {
		return nil, err
	}
	return seen.stanzas, nil
}

// headerReader is an identity that only records the header.
type headerReader struct{ stanzas []*age.Stanza }

// Unwrap implements [age.Identity].
func (h *headerReader) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	h.stanzas = stanzas
	return nil, age.ErrIncorrectIdentity
}
