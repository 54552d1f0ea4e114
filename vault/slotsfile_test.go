package vault

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func goldenEntry() entry {
	m := Meta{VaultID: goldenVaultID, KeyID: goldenKey().ID(), Generation: 3, KeyCreated: time.UnixMilli(1700000000123), Keyring: true, SlotsSeq: 2}
	slots := []Slot{{ID: "0123456789abcdef", Kind: SlotRecovery, Label: "recovery", Recipient: "age1x", wrapped: "-----BEGIN AGE ENCRYPTED FILE-----\n"}}
	return newEntry(m, slots, goldenCheck, stateCurrent)
}

// The bytes of the slots file must never change.
const goldenSlotsFile = `{
  "format": "rbee-vault-slots-1",
  "entries": [
    {
      "vault_id": "0b5c5d1e-6d2c-4a43-9d0f-5f3f0a4d2b11",
      "key_id": "KEYID",
      "generation": 3,
      "created": "2023-11-14T22:13:20.123Z",
      "check": "fec83a73b4b186794323583370102eae",
      "state": "current",
      "keyring": true,
      "slots_seq": 2,
      "slots": [
        {
          "id": "0123456789abcdef",
          "kind": "recovery",
          "label": "recovery",
          "person": null,
          "recipient": "age1x",
          "identity": null,
          "vouch": null,
          "age": "-----BEGIN AGE ENCRYPTED FILE-----\n"
        }
      ]
    }
  ]
}
`

// TestSlotsFileRefuses: a key has only one entry, and a file that is too large to be read again
// is not written.
func TestSlotsFileRefuses(t *testing.T) {
	e := goldenEntry()
	if entries, err := parseSlotsFile(renderSlotsFile([]entry{e, e})); !errors.Is(err, ErrInvalid) || entries != nil {
		t.Errorf("two entries of one key: %v", err)
	}
	if err := checkSlotsFile([]entry{e}); err != nil {
		t.Error(err)
	}
	e.Slots[0].wrapped = strings.Repeat("A", maxSlotsFile)
	if err := checkSlotsFile([]entry{e}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a file that is too large: %v", err)
	}
	path := filepath.Join(t.TempDir(), "slots")
	if err := os.WriteFile(path, renderSlotsFile([]entry{e}), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := readSlotsFile(path); err == nil && f.err == nil {
		t.Error("a file that is too large is read")
	}
}

func TestRenderSlotsFile(t *testing.T) {
	want := strings.Replace(goldenSlotsFile, "KEYID", goldenKey().ID().String(), 1)
	got := renderSlotsFile([]entry{goldenEntry()})
	if string(got) != want {
		t.Errorf("rendered\n%s\nwant\n%s", got, want)
	}
	entries, err := parseSlotsFile(got)
	if err != nil || !bytes.Equal(renderSlotsFile(entries), got) {
		t.Errorf("parsed and rendered again: %v", err)
	}
	for _, bad := range []string{
		"", "{}", "[]", want + "x", strings.Replace(want, "slots-1", "slots-2", 1), strings.Replace(want, `"current"`, `"other"`, 1),
		strings.Replace(want, `"check": "f`, `"check": "F`, 1), strings.Replace(want, `"keyring"`, `"unknown"`, 1), strings.Replace(want, "2023-", "23-", 1),
		strings.Replace(want, "0b5c5d1e", "0B5C5D1E", 1), strings.Replace(want, `"id": "0`, `"id": "`, 1),
	} {
		if entries, err := parseSlotsFile([]byte(bad)); err == nil || entries != nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func FuzzParseSlotsFile(f *testing.F) {
	f.Add(renderSlotsFile([]entry{goldenEntry()}))
	f.Add([]byte(`{"format":"rbee-vault-slots-1","entries":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseSlotsFile(data)
		if err != nil {
			if entries != nil {
				t.Error("entries with an error")
			}
			return
		}
		rendered := renderSlotsFile(entries)
		again, err := parseSlotsFile(rendered)
		if err != nil || !bytes.Equal(renderSlotsFile(again), rendered) {
			t.Errorf("what was rendered does not parse to the same: %v", err)
		}
	})
}
