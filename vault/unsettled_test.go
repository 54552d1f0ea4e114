package vault_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// impatient is a keyring whose caller cancels while an anchor is written.
type impatient struct {
	faulttest.Keyring
	giveUp context.CancelFunc
}

func (k impatient) Set(ctx context.Context, account, value string) error {
	if strings.HasSuffix(account, "/anchor") {
		k.giveUp()
	}
	return k.Keyring.Set(ctx, account, value)
}

// TestCallerGivesUpBehindCommit: the work after a commit is still done, and the handle
// continues.
func TestCallerGivesUpBehindCommit(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	ctx, giveUp := context.WithCancel(t.Context())
	cfg.Keyring = impatient{k, giveUp}
	v := vaulttest.Open(t, cfg)
	if _, err := v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient}); err != nil {
		t.Errorf("the change was made, but the error is %v", err)
	}
	if ctx.Err() == nil {
		t.Fatal("the caller did not give up")
	}
	if !bytes.Contains(read(t, cfg.Path+".slots"), []byte(otherRecipient)) {
		t.Error("the slots file does not have the slot")
	}
	if err := v.Update(t.Context(), func(*vault.Tx) error { return nil }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	v.Close()
	// The anchor followed too: it matches the database.
	cfg.Keyring = k
	anchored := k.Steps.N()
	v = vaulttest.Open(t, cfg)
	v.Close()
	for _, step := range k.Steps.Names()[anchored:] {
		if step == "keyring set" {
			t.Error("the anchor had to be written again")
		}
	}
}

// TestUnsettledTriesAgain: once the slots file can be written, the handle writes it and
// continues.
func TestUnsettledTriesAgain(t *testing.T) {
	cfg := vaulttest.Config(t)
	steps := &faulttest.Steps{At: 1, Fault: faulttest.FailOnwards}
	cfg.FS = faulttest.FS{Steps: steps}
	v := vaulttest.Open(t, cfg)
	if _, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient}); !errors.Is(err, vault.ErrUnsettled) {
		t.Fatalf("%v, want ErrUnsettled", err)
	}
	update := func() error {
		return v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") })
	}
	if err := update(); !errors.Is(err, vault.ErrUnsettled) {
		t.Errorf("while it cannot be written: %v, want ErrUnsettled", err)
	}
	steps.At = 0 // the disk has room again
	if err := update(); err != nil {
		t.Errorf("when it can: %v", err)
	}
	if !bytes.Contains(read(t, cfg.Path+".slots"), []byte(otherRecipient)) {
		t.Error("the slots file does not have the slot")
	}
	// So does every other call that changes something.
	for what, change := range map[string]func() error{
		"AddSlot": func() error {
			identity, err := age.GenerateX25519Identity()
			if err == nil {
				_, err = v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: identity.Recipient().String()})
			}
			return err
		},
		"Rotate": func() error { _, err := v.Rotate(t.Context()); return err },
	} {
		steps.At = steps.N() + 1
		v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecovery, Show: func(context.Context, vault.NewIdentity) error { return nil }})
		if err := change(); !errors.Is(err, vault.ErrUnsettled) {
			t.Errorf("%s while it cannot be written: %v, want ErrUnsettled", what, err)
		}
		steps.At = 0
		if err := change(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
