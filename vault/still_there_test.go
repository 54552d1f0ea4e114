package vault

import (
	"errors"
	"testing"
)

// TestStillThere: only recipients that the vault in place has are kept. A passphrase slot alone
// is not enough.
func TestStillThere(t *testing.T) {
	slots := map[SlotKind]Slot{}
	for _, kind := range []SlotKind{SlotRecovery, SlotRecipient, SlotPassphrase, SlotCredential} {
		slots[kind] = Slot{Kind: kind, Recipient: "age1" + string(kind)}
	}
	backup := []Slot{slots[SlotRecovery], slots[SlotRecipient], slots[SlotPassphrase], slots[SlotCredential]}
	for _, current := range [][]Slot{{}, {slots[SlotPassphrase]}, {slots[SlotPassphrase], slots[SlotCredential]}} {
		if kept, _, err := stillThere(backup, current); !errors.Is(err, ErrInvalid) || kept != nil {
			t.Errorf("in place %v: %v, %v, want ErrInvalid", current, kept, err)
		}
	}
	kept, leftOut, err := stillThere(backup, []Slot{slots[SlotRecipient], slots[SlotPassphrase]})
	if err != nil || len(kept) != 2 || len(leftOut) != 2 || leftOut[0].Kind != SlotRecovery || leftOut[1].Kind != SlotCredential {
		t.Errorf("kept %v, left out %v, %v", kept, leftOut, err)
	}
}
