package backup

import (
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// NewestAt returns the newest completed backup that shows the vault as it was at a time: it
// was made then or before. Without one the error matches [registry.ErrNotFound].
func NewestAt(records []Record, at time.Time) (Record, error) {
	var newest Record
	for _, r := range records { // oldest first
		if r.Completed() && !r.Created.After(at) {
			newest = r
		}
	}
	if newest.Sequence == 0 {
		return Record{}, fmt.Errorf("a backup of %s or before: %w", wire.FormatTime(at), registry.ErrNotFound)
	}
	return newest, nil
}

// Reachable returns the copies of the backup that can be tried: files, then targets, then
// files of another size, which [Record.Check] refuses by name. Nothing is read yet.
func (r Record) Reachable() []Copy {
	var copies []Copy
	for _, state := range []FileState{FilePresent, FileRemote, FileChanged} {
		for _, c := range r.Copies {
			if r.State(c, false) == state {
				copies = append(copies, c)
			}
		}
	}
	return copies
}
