package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// paths names the files of a vault; all follow the database's name.
type paths struct {
	dir   string
	db    string
	slots string
	lock  string
	write string
	fresh string // the database being built
}

// fileTime is the form of times in file names.
const fileTime = "20060102T150405Z"

// newPaths makes path absolute and follows symbolic links, so that one vault
// has one set of side files by whatever name it is reached, and a rename
// replaces the file and not a link to it.
func newPaths(path string) (paths, error) {
	if path == "" {
		return paths{}, fmt.Errorf("%w: no path of a database given", ErrInvalid)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return paths{}, fmt.Errorf("resolve path %q: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(dir, filepath.Base(abs))
	}
	// The driver cuts a name at '?', and takes "file:" for a URI.
	if strings.ContainsAny(abs, "?\x00\n") {
		return paths{}, fmt.Errorf("%w: path %q: a database's path has no question mark, line break or NUL", ErrInvalid, abs)
	}
	return paths{
		dir:   filepath.Dir(abs),
		db:    abs,
		slots: abs + ".slots",
		lock:  abs + ".lock",
		write: abs + ".write",
		fresh: abs + ".new",
	}, nil
}

// sideFiles are SQLite's own files beside a database.
func sideFiles(db string) []string { return []string{db + "-wal", db + "-shm", db + "-journal"} }

func (p paths) before(version int64) string { return fmt.Sprintf("%s.before-v%d", p.db, version) }

func (p paths) foreignSlots(now time.Time) string {
	return p.slots + ".foreign-" + now.Format(fileTime)
}

func (p paths) replaced(now time.Time) string { return p.db + ".replaced-" + now.Format(fileTime) }

// setAside reports whether the database is one that a transition or a
// migration put aside: it is opened for reading only.
func (p paths) setAside() bool {
	return asideName.MatchString(filepath.Base(p.db))
}

// asideName matches the names that before and replaced give.
var asideName = regexp.MustCompile(`\.(before-v\d+|replaced-\d{8}T\d{6}Z(-\d+)?)$`)

// glob returns the files whose names begin with the database's name followed by
// infix.
func (p paths) glob(infix string) []string {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil
	}
	prefix := filepath.Base(p.db) + infix
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			found = append(found, filepath.Join(p.dir, e.Name()))
		}
	}
	return found
}

// InsecureError says which file others could read or change, and the command
// that mends it. It matches [ErrInsecure].
type InsecureError struct {
	Path string
	Rule string // what is wrong
	Mend string // a shell command
}

func (e *InsecureError) Error() string { return fmt.Sprintf("%s %s", e.Path, e.Rule) }

// Unwrap returns [ErrInsecure].
func (e *InsecureError) Unwrap() error { return ErrInsecure }

// CheckPrivate refuses a file or directory that its group or the world can
// read or write, or that somebody else owns, with an [*InsecureError]. What is
// not there passes.
func CheckPrivate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("examine %q: %w", path, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		mend := fmt.Sprintf("sudo chown %d %s", os.Geteuid(), Quote(path))
		if os.Geteuid() == 0 {
			mend = fmt.Sprintf("sudo -u '#%d' rbee-vault ...", st.Uid)
		}
		return &InsecureError{Path: path, Rule: fmt.Sprintf("belongs to user %d, not to you (%d)", st.Uid, os.Geteuid()), Mend: mend}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		want := "600"
		if info.IsDir() {
			want = "700"
		}
		return &InsecureError{Path: path, Rule: fmt.Sprintf("is open to others (mode %04o)", mode), Mend: fmt.Sprintf("chmod %s %s", want, Quote(path))}
	}
	return nil
}

// CreateFile puts a secret into a new file, mode 0600, whole and flushed to the
// disk, or not at all. It returns [ErrFileExists] where something is there.
func CreateFile(path string, data []byte) error {
	return IdentityFile{Path: path}.put(durable.OS{}, data)
}

// Quote makes a path safe to paste into a POSIX shell.
func Quote(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// checkPrivate checks the directory and every file of a vault that exists.
func (p paths) checkPrivate() error {
	for _, path := range append([]string{p.dir, p.db, p.slots, p.lock, p.write, p.fresh}, sideFiles(p.db)...) {
		if err := CheckPrivate(path); err != nil {
			return err
		}
	}
	return nil
}

// makeDir creates a directory that only its owner can enter, durably, and
// checks it when it is there.
func makeDir(fsys durable.FS, dir string) error {
	ok, err := durable.Exists(dir)
	if err != nil {
		return fmt.Errorf("examine %q: %w", dir, err)
	}
	if !ok {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create directory: %w", err)
		}
		if err := fsys.SyncDir(filepath.Dir(dir)); err != nil {
			return fmt.Errorf("flush directory: %w", err)
		}
	}
	return CheckPrivate(dir)
}
