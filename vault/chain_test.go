package vault_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestFollow: a row must continue the row before it, in number and in hash. That the row itself
// is valid is not enough.
func TestFollow(t *testing.T) {
	log := func() (rows []vault.AuditRow) {
		cfg := vaulttest.Config(t)
		node(t, cfg, "hive-01")
		v := vaulttest.Open(t, cfg)
		defer v.Close()
		err := v.View(t.Context(), func(tx *vault.Tx) error {
			for r, err := range tx.AuditRows(t.Context(), 1) {
				if err != nil {
					return err
				}
				rows = append(rows, r)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	ours, theirs := log(), log()
	head := vault.AuditHead{Seq: ours[0].Seq, Hash: ours[0].Hash}
	if _, err := head.Follow(ours[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := head.Follow(theirs[1]); !errors.Is(err, vault.ErrAudit) {
		t.Errorf("a row of another log: %v", err)
	}
	for _, seq := range []int64{0, 2, 7} {
		if _, err := (vault.AuditHead{Seq: seq, Hash: head.Hash}).Follow(ours[1]); !errors.Is(err, vault.ErrAudit) {
			t.Errorf("row 2 behind row %d: %v", seq, err)
		}
	}
}

// TestSlotsSeqCounts: by this count, a slots file shows that a database is older.
func TestSlotsSeqCounts(t *testing.T) {
	v := vaulttest.New(t)
	seq := func() (n int64) {
		err := v.View(t.Context(), func(tx *vault.Tx) error {
			m, err := tx.Meta(t.Context())
			n = m.SlotsSeq
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := seq()
	added, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient})
	if err != nil {
		t.Fatal(err)
	}
	if got := seq(); got != before+1 {
		t.Errorf("%d after a slot was added, %d before", got, before)
	}
	if err := v.RemoveSlot(t.Context(), added.ID); err != nil {
		t.Fatal(err)
	}
	if got := seq(); got != before+2 {
		t.Errorf("%d after it was removed, %d before", got, before)
	}
}

// TestPowerCutBehindDestroy: after a power cut, destroyed files do not come back, and the name
// of a new directory is not lost.
func TestPowerCutBehindDestroy(t *testing.T) {
	cfg := vaulttest.Config(t)
	disk := &faulttest.Disk{Lost: filepath.Join(t.TempDir(), "lost")}
	cfg.FS = faulttest.FS{Steps: &faulttest.Steps{Disk: disk}}
	if _, err := vault.Destroy(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if disk.Unflushed() {
		t.Error("a power cut would bring something back")
	}
	steps := &faulttest.Steps{}
	made := vault.Config{Path: filepath.Join(t.TempDir(), "new", "beehives.db"), FS: faulttest.FS{Steps: steps}}
	if _, err := vault.Create(t.Context(), made, vault.CreateOptions{Recipients: []string{otherRecipient}}); err != nil {
		t.Fatal(err)
	}
	if steps.Names()[0] != "sync directory" {
		t.Errorf("the new directory's name was not flushed first: %v", steps.Names())
	}
}
