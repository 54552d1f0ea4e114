package registry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestDigestDoesNotDrift: after any operation of the library, with its cascades, the
// stored digest is that of the rows.
func TestDigestDoesNotDrift(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := registry.New(vaulttest.New(t))
		v, ctx := r.Vault(), t.Context()
		defer v.Close()
		names := []string{"hive-01", "hive-02", "hive-03"}
		name := func() string { return rapid.SampledFrom(names).Draw(rt, "node") }
		fingerprint := func() string {
			keys, err := r.ListSSHKeys(ctx)
			if err != nil || len(keys) == 0 {
				return "SHA256:none"
			}
			return keys[rapid.IntRange(0, len(keys)-1).Draw(rt, "key")].Fingerprint
		}
		ops := map[string]func() error{
			"create": func() error { return r.CreateNode(ctx, keyNode(name())) },
			"create with key": func() error {
				_, err := r.CreateNodeWithKey(ctx, keyNode(name()), registry.KeyChoice{Generate: true})
				return err
			},
			"add": func() error {
				n := keyNode(name())
				n.SSHPort = uint16(rapid.IntRange(1, 9).Draw(rt, "port"))
				return r.AddNode(ctx, n)
			},
			"add with details": func() error {
				n := keyNode(name())
				n.ProxyJump = rapid.SampledFrom(append(names, "", "hive-09")).Draw(rt, "jump")
				n.Note = rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "note")
				n.Labels = rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.SampledFrom([]string{"", "1", "2"}), 0, 3).Draw(rt, "labels")
				return r.AddNode(ctx, n)
			},
			"jump": func() error {
				return r.UpdateNode(ctx, name(), func(n *registry.Node) error {
					n.ProxyJump = rapid.SampledFrom(append(names, "")).Draw(rt, "jump")
					return nil
				})
			},
			"update": func() error {
				return r.UpdateNodes(ctx, names[:1], func(n *registry.Node) error {
					n.InstallPath = fmt.Sprintf("/opt/%d", rapid.IntRange(0, 3).Draw(rt, "path"))
					return nil
				})
			},
			"rename":          func() error { return r.RenameNode(ctx, name(), name()) },
			"remove":          func() error { _, err := r.RemoveNode(ctx, name()); return err },
			"status":          func() error { return r.UpdateStatus(ctx, name(), registry.StatusOnline) },
			"contact":         func() error { return r.UpdateLastConnected(ctx, name()) },
			"capabilities":    func() error { return r.UpdateCapabilities(ctx, name(), []string{"cpu"}, nil) },
			"generate":        func() error { _, err := r.GenerateSSHKey(ctx, "ed25519", "", name()); return err },
			"assign":          func() error { return r.AssignSSHKey(ctx, fingerprint(), name()) },
			"unassign":        func() error { return r.AssignSSHKey(ctx, "", name()) },
			"remove key":      func() error { return r.RemoveSSHKey(ctx, fingerprint(), true) },
			"begin rotation":  func() error { _, err := r.BeginKeyRotation(ctx, name()); return err },
			"switch rotation": func() error { return r.SwitchKeyRotation(ctx, name()) },
			"save rotations":  func() error { return r.SaveKeyRotations(ctx, names...) },
			"end rotation":    func() error { _, err := r.EndKeyRotation(ctx, name()); return err },
			"export key": func() error {
				pem, err := r.ExportSSHKey(ctx, fingerprint(), "a test")
				clear(pem)
				return err
			},
			"trust": func() error {
				_, err := r.TrustHostKey(ctx, name(), hostKey(t, rapid.Byte().Draw(rt, "seed")))
				return err
			},
			"forget": func() error { _, err := r.ForgetHostKeys(ctx, "", name()); return err },
			"import": func() error {
				_, err := r.Import(ctx, registry.ImportSet{Nodes: []registry.Node{keyNode("hive-01"), keyNode("hive-02")}}, registry.ImportOptions{Replace: true})
				return err
			},
			"rotate": func() error { _, err := v.Rotate(ctx); return err },
			"slot":   func() error { return changeSlots(ctx, v) },
		}
		kinds := make([]string, 0, len(ops))
		for op := range ops {
			kinds = append(kinds, op)
		}
		slices.Sort(kinds)
		for range rapid.IntRange(3, 20).Draw(rt, "operations") {
			op := rapid.SampledFrom(kinds).Draw(rt, "operation")
			err := ops[op]()
			for _, refused := range []error{registry.ErrNotFound, registry.ErrExists, registry.ErrHostKeyChanged, vault.ErrSlotExists, vault.ErrNoSlot, registry.ErrInvalid, registry.ErrInUse} {
				if errors.Is(err, refused) {
					err = nil
				}
			}
			if err != nil {
				rt.Fatalf("%s: %v", op, err)
			}
			if err := v.View(ctx, func(tx *vault.Tx) error { return tx.VerifyContent(ctx) }); err != nil {
				rt.Fatalf("behind %s: %v", op, err)
			}
		}
	})
}

// changeSlots adds a recipient, or removes it where it exists.
func changeSlots(ctx context.Context, v *vault.Vault) error {
	const recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
	var slots []vault.Slot
	err := v.View(ctx, func(tx *vault.Tx) (err error) {
		slots, err = tx.Slots(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range slots {
		if s.Recipient == recipient {
			return v.RemoveSlot(ctx, s.ID)
		}
	}
	_, err = v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: recipient})
	return err
}
