package sqlcipher

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// claimed is the one variable of this package: what it guards belongs to the process.
var claimed = claims{files: map[fileID]bool{}}

// claims is the set of files that this process has open as databases.
type claims struct {
	mu    sync.Mutex
	files map[fileID]bool
}

type fileID struct{ device, inode uint64 }

func idOf(info os.FileInfo) fileID {
	st := info.Sys().(*syscall.Stat_t)
	return fileID{uint64(st.Dev), uint64(st.Ino)}
}

// Claim is the right of its holder to open a database file in this process.
type Claim struct{ info os.FileInfo }

// TakeClaim claims the file at path. It returns [ErrAlreadyOpen] where it is claimed, and
// an error that matches [fs.ErrNotExist] where there is none.
func TakeClaim(path string) (*Claim, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	claimed.mu.Lock()
	defer claimed.mu.Unlock()
	if claimed.files[idOf(info)] {
		return nil, ErrAlreadyOpen
	}
	claimed.files[idOf(info)] = true
	return &Claim{info}, nil
}

// Covers reports whether the file is the claimed one.
func (c *Claim) Covers(info os.FileInfo) bool { return os.SameFile(c.info, info) }

// Move makes it a claim on the file that is at path now, which the holder has put there.
func (c *Claim) Move(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	claimed.mu.Lock()
	defer claimed.mu.Unlock()
	delete(claimed.files, idOf(c.info))
	claimed.files[idOf(info)] = true
	c.info = info
	return nil
}

// Release ends the claim. The database must be closed.
func (c *Claim) Release() {
	claimed.mu.Lock()
	defer claimed.mu.Unlock()
	delete(claimed.files, idOf(c.info))
}

// Unclaimed runs fn, which may open the file, and keeps it from being claimed meanwhile;
// or returns [ErrAlreadyOpen].
func Unclaimed(info os.FileInfo, fn func() error) error {
	claimed.mu.Lock()
	defer claimed.mu.Unlock()
	if claimed.files[idOf(info)] {
		return ErrAlreadyOpen
	}
	return fn()
}

// CheckNotOpen refuses, with [ErrAlreadyOpen], a file that this process has open as a
// database, or SQLite's own file beside one: whoever opens it otherwise and closes it
// again drops the locks of the database.
func CheckNotOpen(path string) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	databases := []string{path}
	for _, suffix := range SideFiles("") {
		if db, ok := strings.CutSuffix(path, suffix); ok {
			databases = append(databases, db)
		}
	}
	for _, db := range databases {
		info, err := os.Stat(db)
		if err != nil {
			continue // whoever opens it says so
		}
		if err := Unclaimed(info, func() error { return nil }); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	return nil
}
