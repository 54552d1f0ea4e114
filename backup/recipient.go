package backup

import (
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Recipient can open a backup.
type Recipient struct {
	Recipient string `json:"recipient"` // public
	Label     string `json:"label"`
}

// Name names the recipient for a person: its label, or the beginning of its key.
func (r Recipient) Name() string {
	if r.Label != "" {
		return r.Label
	}
	return wire.Shorten(r.Recipient, 24)
}

// Reader is a recipient with the backups that it opens.
type Reader struct {
	Recipient
	Sequences []int64 // ascending
}

// Readers returns who can open which of the backups that are kept somewhere, in the order in
// which they first appear. The label is the newest one.
func Readers(records []Record) []Reader {
	var readers []Reader
	index := map[string]int{}
	for _, r := range records {
		kept := false
		for _, c := range r.Copies {
			kept = kept || c.There()
		}
		if !kept {
			continue
		}
		for _, to := range r.Recipients {
			i, ok := index[to.Recipient]
			if !ok {
				i = len(readers)
				index[to.Recipient] = i
				readers = append(readers, Reader{})
			}
			readers[i].Recipient = to
			readers[i].Sequences = append(readers[i].Sequences, r.Sequence)
		}
	}
	return readers
}

// Ranges writes ascending sequences for a person: "1-5, 7".
func Ranges(sequences []int64) string {
	var parts []string
	for i := 0; i < len(sequences); i++ {
		first := sequences[i]
		for i+1 < len(sequences) && sequences[i+1] == sequences[i]+1 {
			i++
		}
		part := fmt.Sprint(first)
		if sequences[i] != first {
			part = fmt.Sprintf("%d-%d", first, sequences[i])
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
