package vault

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// rehearsalName is the name of the database in the directory of a rehearsal.
const rehearsalName = "beehives.db"

// rehearsalLock is the lock of the one that has the directory.
func (p paths) rehearsalLock() string { return p.rehearsal + ".lock" }

// rehearsing reports whether a process tries a restore out.
func (p paths) rehearsing() bool {
	lock := durable.NewLock(p.rehearsalLock())
	free, err := lock.TryExclusive()
	if free {
		lock.Unlock()
	}
	return !free && err == nil
}

// rehearsalFiles lists what rehearsals made in their directory, and the directory last. What
// somebody else put there is not listed: then the directory cannot be removed.
func (p paths) rehearsalFiles() []string {
	// A link could lead to a vault. What is not a directory, no rehearsal made.
	if info, err := os.Lstat(p.rehearsal); err != nil || !info.IsDir() {
		return nil
	}
	entries, err := os.ReadDir(p.rehearsal)
	if err != nil {
		return nil
	}
	var files []string
	for _, e := range entries {
		if path := filepath.Join(p.rehearsal, e.Name()); strings.HasPrefix(e.Name(), rehearsalName) {
			files = append(files, path)
		}
	}
	return append(files, p.rehearsal)
}

// removeRehearsal removes the directory of a rehearsal. The caller holds its lock.
func (p paths) removeRehearsal(fsys durable.FS) error {
	files := p.rehearsalFiles()
	for _, path := range files {
		if err := durable.RemoveIfExists(fsys, path); err != nil {
			return err
		}
	}
	if files == nil {
		return nil
	}
	return fsys.SyncDir(p.dir)
}
