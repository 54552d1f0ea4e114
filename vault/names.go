package vault

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

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

// of lists the files of a kind that belong to the database.
func (p paths) of(kind fileKind) []string {
	return p.beside(func(path string) bool {
		owner, k := reserved(path)
		return owner == p.db && k == kind
	})
}

// parts lists the unfinished writes of the vault's own files, and of their files. An unfinished
// write of another file beside them, such as a backup, is not listed.
func (p paths) parts() []string {
	return p.beside(func(path string) bool {
		owner, kind := reserved(path)
		return kind == partFile && owner != p.db && p.owns(owner)
	})
}

// owns reports whether the file is the database, or belongs to it, directly or through other
// files.
func (p paths) owns(path string) bool {
	for {
		owner, kind := reserved(path)
		if path == p.db || kind == notReserved {
			return path == p.db
		}
		path = owner
	}
}

// beside lists the matching files in the database's directory.
func (p paths) beside(fits func(path string) bool) []string {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil
	}
	prefix := filepath.Base(p.db)
	var found []string
	for _, e := range entries {
		path := filepath.Join(p.dir, e.Name())
		if strings.HasPrefix(e.Name(), prefix) && fits(path) {
			found = append(found, path)
		}
	}
	return found
}

// setAside reports whether a transition or a migration set this database aside. Then it is
// opened only for reading.
func (p paths) setAside() bool {
	_, kind := reserved(p.db)
	return kind == beforeDatabase || kind == replacedVault
}

// checkName refuses a database whose name is reserved: the vault that owns the name would treat
// the database as its own file. A database that was set aside is allowed, but not for a new
// vault.
func (p paths) checkName(isNew bool) error {
	owner, kind := reserved(p.db)
	if kind == notReserved || p.setAside() && !isNew {
		return nil
	}
	return fmt.Errorf("%w: the name %q is reserved for a file of the vault %q: choose another name", ErrInvalid, p.db, filepath.Base(owner))
}

// CheckOutput refuses a path at which a new file would be taken for a vault's own: a reserved
// name, such as "x.new" or "x.slots", and the path of the database db itself. The error matches
// [ErrInvalid].
func CheckOutput(path, db string) error {
	out, err := resolve(path)
	if err != nil {
		return err
	}
	if owner, kind := reserved(out); kind != notReserved {
		return fmt.Errorf("%w: the name %q is reserved for a file of the vault %q: choose another name", ErrInvalid, path, filepath.Base(owner))
	}
	if db == "" {
		return nil
	}
	if db, err = resolve(db); err != nil {
		return err
	}
	if out == db {
		return fmt.Errorf("%w: %q is the vault itself: choose another name", ErrInvalid, path)
	}
	return nil
}
