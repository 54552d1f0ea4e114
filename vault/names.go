package vault

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// The files beside a database have the database's name and one suffix or more.
// These names are reserved: no vault and no other file is made under one, and a
// file is taken for a vault's own only by what [reserved] says of its name.

// fileKind is what a file is to the file that it belongs to.
type fileKind int

const (
	notReserved    fileKind = iota
	lockFile                // a lock: it is empty, and stays
	slotsCopy               // the slots file
	foreignSlots            // a slots file that was put aside
	sqliteFile              // SQLite's own
	freshDatabase           // a database that is being built
	beforeDatabase          // a database from before a migration
	replacedVault           // a database that restore put aside
	partFile                // a file that is being written
)

// suffixes tell the kinds; of two that fit, the first.
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
	{replacedVault, regexp.MustCompile(`\.replaced-\d{8}T\d{6}Z(-\d+)?$`)},
}

// reserved returns which file the one at path belongs to, and as what, by the last
// suffix of its name: "b.db.new-wal" is SQLite's file of "b.db.new".
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

// parts lists unfinished files that were to be the vault's own, or its files'. One
// beside them, such as a backup that is being written, is not.
func (p paths) parts() []string {
	return p.beside(func(path string) bool {
		owner, kind := reserved(path)
		return kind == partFile && owner != p.db && p.owns(owner)
	})
}

// owns reports whether a file is the database, or belongs to it through others.
func (p paths) owns(path string) bool {
	for {
		owner, kind := reserved(path)
		if path == p.db || kind == notReserved {
			return path == p.db
		}
		path = owner
	}
}

// beside lists the files in the database's directory that fit.
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

// setAside reports whether the database is one that a transition or a
// migration put aside: it is opened for reading only.
func (p paths) setAside() bool {
	_, kind := reserved(p.db)
	return kind == beforeDatabase || kind == replacedVault
}

// checkName refuses a database whose name is reserved: the vault that the name
// belongs to would treat it as its own file. One that was set aside is allowed
// where it exists already.
func (p paths) checkName(isNew bool) error {
	owner, kind := reserved(p.db)
	if kind == notReserved || p.setAside() && !isNew {
		return nil
	}
	return fmt.Errorf("%w: the name %q is reserved for a file of the vault %q: choose another name", ErrInvalid, p.db, filepath.Base(owner))
}

// CheckOutput refuses a path at which a new file would be taken for one of a
// vault's own: a reserved name, such as "x.new" or "x.slots", and the database at
// db itself. The error matches [ErrInvalid].
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
