package vault

import (
	"context"
	"crypto/hmac"
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/identity"
)

// checkSigner checks that something vouches for the vault, before anything in it is trusted or
// written. Errors: [ErrOtherVault], [ErrForeignSigner], [ErrSuccessor], [ErrUnvouched],
// [ErrDamaged].
func (v *Vault) checkSigner(ctx context.Context, r reading) error {
	m := r.meta
	if v.cfg.VaultID != "" && v.cfg.VaultID != m.VaultID {
		return fmt.Errorf("%w: %q is vault %s, but vault %s is wanted", ErrOtherVault, v.paths.db, m.VaultID, v.cfg.VaultID)
	}
	if err := m.checkBinding(v.key.Check()); err != nil {
		return err
	}
	if !v.needsSigners() {
		return nil
	}
	trail := Predecessors(m.VaultID, r.signers)
	if len(trail) == 0 || trail[len(trail)-1] != m.Signer {
		return fmt.Errorf("%w: its signer is not the newest of its list", ErrDamaged)
	}
	says := v.opener.testimony(r.slots, m, trail)
	if v.cfg.Signer != "" {
		if err := v.checkGivenSigner(m, trail); err != nil {
			return err
		}
		v.vouchToStore = says.missingVouch(m)
		return nil
	}
	if len(says.claims) > 0 {
		return checkClaims(says.claims, m, trail)
	}
	if says.vouch != "" && says.key != nil {
		if !says.vouches {
			return fmt.Errorf("%w: slot %s does not vouch for the signer %s", ErrForeignSigner, v.opener.slot.ID, m.SignerFingerprint())
		}
		if len(says.otherVaults) > 0 {
			v.cfg.log().Warn("the identity file is of another vault, but its slot here vouches for this one", "this", m.VaultID, "file", strings.Join(says.otherVaults, " "))
		}
		return nil
	}
	if err := v.askSigner(ctx, m, says.otherVaults); err != nil {
		return err
	}
	v.vouchToStore = says.missingVouch(m)
	return nil
}

// testimony is what the identity that opened a vault, its file and its slot say about the signer.
type testimony struct {
	key         []byte   // with which the identity vouches, or nil
	claims      []claim  // of the identity file about this vault
	otherVaults []string // that the identity file names
	vouch       string   // in the slot, or ""
	vouches     bool     // the vouch is for the signer, or for one from which certificates lead to it
}

func (o opener) testimony(slots []Slot, m Meta, trail []string) testimony {
	t := testimony{key: vouchKey(o.identity)}
	for _, c := range parseClaims(identity.Describe(o.identity).Comments) {
		if c.vaultID == m.VaultID {
			t.claims = append(t.claims, c)
		} else {
			t.otherVaults = append(t.otherVaults, c.vaultID)
		}
	}
	for _, s := range slots {
		if s.ID == o.slot.ID && s.Recipient == o.slot.Recipient {
			t.vouch = s.vouch
		}
	}
	t.vouches = t.key != nil && t.vouch != "" && slices.ContainsFunc(trail, func(line string) bool {
		return hmac.Equal([]byte(vouchFor(t.key, m.VaultID, line)), []byte(t.vouch))
	})
	return t
}

// missingVouch returns the vouch that the slot should have and has not, or "".
func (t testimony) missingVouch(m Meta) string {
	if t.key == nil || t.vouches {
		return ""
	}
	return vouchFor(t.key, m.VaultID, m.Signer)
}

// checkClaims checks that every claim names the vault's signer, or one from which certificates
// lead to it.
func checkClaims(claims []claim, m Meta, trail []string) error {
	for _, c := range claims {
		if c.signer == "" {
			return fmt.Errorf("%w: the identity file names this vault, but no signer: it was cut", ErrForeignSigner)
		}
		if !leadsFrom(trail, c.signer) {
			return fmt.Errorf("%w: the identity file names the signer %s; this vault's signer is %s, and no certificate links the two", ErrForeignSigner, c.signer, m.SignerFingerprint())
		}
	}
	return nil
}

// needsSigners reports whether something must vouch for the signer. If the keyring's item
// opened the vault, it proves the key.
func (v *Vault) needsSigners() bool { return v.source != FromKeyring || v.cfg.Signer != "" }

// checkGivenSigner compares the vault's signer with the one that the operator gave.
func (v *Vault) checkGivenSigner(m Meta, trail []string) error {
	switch {
	case v.cfg.Signer == m.SignerFingerprint():
		return nil
	case !leadsFrom(trail, v.cfg.Signer):
		return fmt.Errorf("%w: it is %s, but %s was given", ErrForeignSigner, m.SignerFingerprint(), v.cfg.Signer)
	case !v.cfg.AcceptSuccessor:
		return fmt.Errorf("%w: it is %s, which %s certified", ErrSuccessor, m.SignerFingerprint(), v.cfg.Signer)
	}
	return nil
}

// askSigner asks the operator. It asks only once for the same signer of the same vault, because
// a migration opens the vault twice.
func (v *Vault) askSigner(ctx context.Context, m Meta, named []string) error {
	u := Unvouched{Path: v.paths.db, VaultID: m.VaultID, KeyID: m.KeyID, Signer: m.SignerFingerprint(), Named: named}
	answer := u.VaultID + " " + u.Signer
	if v.cfg.accepted != nil && *v.cfg.accepted == answer {
		return nil
	}
	if v.cfg.ConfirmSigner == nil {
		return fmt.Errorf("%w: vault %s, key id %s, signer %s", ErrUnvouched, u.VaultID, u.KeyID, u.Signer)
	}
	if err := v.cfg.ConfirmSigner(ctx, u); err != nil {
		return err
	}
	if v.cfg.accepted != nil {
		*v.cfg.accepted = answer
	}
	return nil
}

// storeVouch stores the vouch of the slot that opened the vault, after the operator confirmed
// or gave the signer. So the question is asked only once. If the write lock is not free,
// storeVouch does nothing, and the next open asks again.
func (v *Vault) storeVouch(ctx context.Context) {
	if v.vouchToStore == "" || v.readOnly || v.changeable() != nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	soon, cancel := context.WithTimeout(ctx, lastTry)
	defer cancel()
	if err := v.write.Exclusive(soon); err != nil {
		return
	}
	defer v.followAnchor(ctx)
	defer v.write.Unlock()
	err := v.changeSlots(ctx, func(tx *Tx, m *Meta, slots []Slot) ([]Slot, Event, error) {
		for i, s := range slots {
			if s.ID == v.opener.slot.ID && s.Recipient == v.opener.slot.Recipient {
				slots[i].vouch = v.vouchToStore
				return slots, Event{Action: ActionStoreVouch, Subject: s.ID, Detail: "for the signer " + m.SignerFingerprint()}, updateSlotVouch(ctx, tx, slots[i])
			}
		}
		return nil, Event{}, ErrNoSlot
	})
	if err != nil {
		v.cfg.log().Warn("the answer could not be stored: the next open asks again", "error", err)
	}
}
