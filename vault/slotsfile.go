package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/google/uuid"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// The slots file holds what the slots table holds, beside the database. A reader that has an
// identity but no key yet needs it. During a transition it has an entry for each key that may
// become the current one.

const slotsFormat = "rbee-vault-slots-1"

// maxSlotsFile is the largest size of the file. 1 MiB is enough for over two hundred
// post-quantum slots.
const maxSlotsFile = 1 << 20

type state string

const (
	stateCurrent  state = "current"
	statePending  state = "pending"  // a transition's key, not in place yet
	stateReplaced state = "replaced" // of a file that restore set aside
)

// entry is what the slots file says about one key.
type entry struct {
	VaultID    string
	KeyID      KeyID
	Generation int64
	Created    string // of the key, as FormatTime formats it
	Check      string
	State      state
	Keyring    bool
	SlotsSeq   int64
	Slots      []Slot
}

// newEntry returns the entry that the tables give.
func newEntry(m Meta, slots []Slot, check string, st state) entry {
	return entry{
		VaultID:    m.VaultID,
		KeyID:      m.KeyID,
		Generation: m.Generation,
		Created:    wire.FormatTime(m.KeyCreated),
		Check:      check,
		State:      st,
		Keyring:    m.Keyring,
		SlotsSeq:   m.SlotsSeq,
		Slots:      slots,
	}
}

type slotsFileJSON struct {
	Format  string      `json:"format"`
	Entries []entryJSON `json:"entries"`
}

type entryJSON struct {
	VaultID    string          `json:"vault_id"`
	KeyID      string          `json:"key_id"`
	Generation int64           `json:"generation"`
	Created    string          `json:"created"`
	Check      string          `json:"check"`
	State      state           `json:"state"`
	Keyring    bool            `json:"keyring"`
	SlotsSeq   int64           `json:"slots_seq"`
	Slots      []entrySlotJSON `json:"slots"`
}

type entrySlotJSON struct {
	ID        string   `json:"id"`
	Kind      SlotKind `json:"kind"`
	Label     string   `json:"label"`
	Person    *string  `json:"person"`
	Recipient string   `json:"recipient"`
	Identity  *string  `json:"identity"`
	Vouch     *string  `json:"vouch"`
	Age       string   `json:"age"`
}

// renderSlotsFile returns the file's bytes. The same entries always give the same bytes.
func renderSlotsFile(entries []entry) []byte {
	file := slotsFileJSON{Format: slotsFormat, Entries: []entryJSON{}}
	for _, e := range entries {
		j := entryJSON{
			VaultID:    e.VaultID,
			KeyID:      e.KeyID.String(),
			Generation: e.Generation,
			Created:    e.Created,
			Check:      e.Check,
			State:      e.State,
			Keyring:    e.Keyring,
			SlotsSeq:   e.SlotsSeq,
			Slots:      []entrySlotJSON{},
		}
		for _, s := range e.Slots {
			j.Slots = append(j.Slots, entrySlotJSON{
				ID:        s.ID,
				Kind:      s.Kind,
				Label:     s.Label,
				Person:    wire.Nullable(s.Person),
				Recipient: s.Recipient,
				Identity:  wire.Nullable(s.Identity),
				Vouch:     wire.Nullable(s.vouch),
				Age:       s.wrapped,
			})
		}
		file.Entries = append(file.Entries, j)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(file); err != nil {
		panic(err) // cannot fail: only strings, numbers and booleans
	}
	return b.Bytes()
}

// checkSlotsFile refuses entries that would make the file too large to be read.
func checkSlotsFile(entries []entry) error {
	if len(renderSlotsFile(entries)) > maxSlotsFile {
		return fmt.Errorf("%w: too many slots: the slots file would be over %d bytes", ErrInvalid, maxSlotsFile)
	}
	return nil
}

// parseSlotsFile parses the file. Its formatting may differ from ours. For unknown content, or
// content that breaks a rule, the error matches [ErrInvalid].
func parseSlotsFile(data []byte) ([]entry, error) {
	var file slotsFileJSON
	if err := wire.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Format != slotsFormat {
		return nil, fmt.Errorf("%w: slots file of format %q", ErrInvalid, file.Format)
	}
	var entries []entry
	for _, j := range file.Entries {
		e, err := j.parse()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(entries, func(other entry) bool { return other.KeyID == e.KeyID }) {
			return nil, fmt.Errorf("%w: two entries for the same key", ErrInvalid)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (j entryJSON) parse() (entry, error) {
	id, err := ParseKeyID(j.KeyID)
	if err != nil {
		return entry{}, err
	}
	var check [16]byte
	if !wire.ParseHex(check[:], j.Check) {
		return entry{}, fmt.Errorf("%w: a check value must have 32 lower-case hex digits", ErrInvalid)
	}
	if u, err := uuid.Parse(j.VaultID); err != nil || u.String() != j.VaultID {
		return entry{}, fmt.Errorf("%w: a vault id must be a UUID", ErrInvalid)
	}
	if j.State != stateCurrent && j.State != statePending && j.State != stateReplaced {
		return entry{}, fmt.Errorf("%w: an entry has the unknown state %q", ErrInvalid, j.State)
	}
	created, err := wire.ParseTime(j.Created)
	if err != nil {
		return entry{}, err
	}
	e := entry{
		VaultID:    j.VaultID,
		KeyID:      id,
		Generation: j.Generation,
		Created:    j.Created,
		Check:      j.Check,
		State:      j.State,
		Keyring:    j.Keyring,
		SlotsSeq:   j.SlotsSeq,
	}
	for _, s := range j.Slots {
		slot := Slot{ID: s.ID, Kind: s.Kind, Label: s.Label, Person: wire.Text(s.Person), Recipient: s.Recipient, Identity: wire.Text(s.Identity), Created: created, vouch: wire.Text(s.Vouch), wrapped: s.Age}
		if err := slot.validate(); err != nil {
			return entry{}, err
		}
		var vouch [sha256.Size]byte
		if s.Vouch != nil && !wire.ParseHex(vouch[:], *s.Vouch) {
			return entry{}, fmt.Errorf("%w: slot %s: a vouch must have 64 lower-case hex digits", ErrInvalid, s.ID)
		}
		e.Slots = append(e.Slots, slot)
	}
	return e, nil
}

// slotsFile is the content of the file.
type slotsFile struct {
	data    []byte // nil: there is no file
	info    os.FileInfo
	entries []entry
	err     error // why it cannot be parsed
}

func (f slotsFile) present() bool { return f.data != nil }

// find returns the entry of a key id, or nil.
func (f slotsFile) find(id KeyID) *entry {
	for i := range f.entries {
		if f.entries[i].KeyID == id {
			return &f.entries[i]
		}
	}
	return nil
}

// readSlotsFile reads and parses the file. A file that cannot be parsed is no error here: an
// open by another unlock method writes it again.
func readSlotsFile(path string) (slotsFile, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return slotsFile{}, nil
	} else if err != nil {
		return slotsFile{}, fmt.Errorf("read slots file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat() // before it is read, so that a later change is noticed
	if err != nil {
		return slotsFile{}, fmt.Errorf("examine slots file: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSlotsFile+1))
	if err != nil {
		return slotsFile{}, fmt.Errorf("read slots file: %w", err)
	}
	if data == nil {
		data = []byte{}
	}
	file := slotsFile{data: data, info: info}
	if len(data) > maxSlotsFile {
		file.err = fmt.Errorf("%w: slots file is over %d bytes", ErrInvalid, maxSlotsFile)
	} else {
		file.entries, file.err = parseSlotsFile(data)
	}
	return file, nil
}

// passphraseSlots returns the slots that a passphrase opens.
func (e *entry) passphraseSlots() []Slot {
	var slots []Slot
	for _, s := range e.Slots {
		if s.Kind == SlotPassphrase {
			slots = append(slots, s)
		}
	}
	return slots
}
