package vault

import (
	"path/filepath"
	"regexp"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// The files beside a database have its name and one or more suffixes. These names are reserved:
// no vault and no other file may be made under such a name. And only a file whose name
// [reserved] recognizes is treated as a vault's own.

// fileKind says what a file is to its owner, the file that it belongs to.
type fileKind int

const (
	notReserved    fileKind = iota
	lockFile                // a lock; it is empty, and is never removed
	slotsCopy               // the slots file
	foreignSlots            // a slots file that was set aside
	sqliteFile              // one of SQLite's own files
	freshDatabase           // a database that is being built
	beforeDatabase          // a database from before a migration
	replacedVault           // a database that restore set aside
	rehearsal               // a directory with the vault of a restore that is tried out
	partFile                // a file that is being written
)

// suffixes are the suffix of each kind. If two match, the first one counts.
var suffixes = []struct {
	kind   fileKind
	suffix *regexp.Regexp
}{
	{foreignSlots, regexp.MustCompile(`\.slots\.foreign-\d{8}T\d{6}Z(-\d+)?$`)},
	{slotsCopy, regexp.MustCompile(`\.slots$`)},
	{lockFile, regexp.MustCompile(`\.(lock|write|turn|anchor)$`)},
	{sqliteFile, regexp.MustCompile(`-(wal|shm|journal)$`)},
	{freshDatabase, regexp.MustCompile(`\.new$`)},
	{beforeDatabase, regexp.MustCompile(`\.before-v\d+$`)},
	{rehearsal, regexp.MustCompile(`\.drill$`)},
	{replacedVault, regexp.MustCompile(`\.replaced-\d{8}T\d{6}Z(-\d+)?$`)},
}

// reserved returns the owner of the file at path, and what it is to that owner. It looks at the
// last suffix of the name: "b.db.new-wal" is SQLite's file of "b.db.new".
func reserved(path string) (owner string, kind fileKind) {
	if owner, ok := durable.PartOf(path); ok {
		return owner, partFile
	}
	name := filepath.Base(path)
	for _, s := range suffixes {
		if at := s.suffix.FindStringIndex(name); at != nil && at[0] > 0 {
			return path[:len(path)-len(name)+at[0]], s.kind
		}
	}
	return path, notReserved
}
