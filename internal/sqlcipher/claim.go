package sqlcipher

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// claimed is the only variable of this package: the locks that it protects belong to the
// process.
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

// Claim is the right to open a database file in this process.
type Claim struct{ info os.FileInfo }

// TakeClaim claims the file at path. If the file is claimed already, it returns
// [ErrAlreadyOpen]. If there is none, the error matches [fs.ErrNotExist].
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

// Move moves the claim to the file that is at path now. The holder has put that file there.
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

// Release ends the claim. The database must be closed before.
func (c *Claim) Release() {
	claimed.mu.Lock()
	defer claimed.mu.Unlock()
	delete(claimed.files, idOf(c.info))
}

// Unclaimed runs fn, which may open the file. Nobody can claim the file meanwhile. If it is
// claimed already, Unclaimed returns [ErrAlreadyOpen].
func Unclaimed(info os.FileInfo, fn func() error) error {
	claimed.mu.Lock()
	defer claimed.mu.Unlock()
	if claimed.files[idOf(info)] {
		return ErrAlreadyOpen
	}
	return fn()
}

// CheckNotOpen returns [ErrAlreadyOpen] if this process has the file open as a database, or if
// it is SQLite's own file beside such a database. Opening such a file again and closing it
// would drop the locks of the database.
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
			continue // opening the file reports this error
		}
		if err := Unclaimed(info, func() error { return nil }); err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	return nil
}
