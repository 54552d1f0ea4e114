package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// InsecureError says which file others can read or change, and which command fixes it. It
// matches [ErrInsecure].
type InsecureError struct {
	Path string
	Rule string // what is wrong
	Fix  string // a shell command
}

func (e *InsecureError) Error() string { return fmt.Sprintf("%s %s", e.Path, e.Rule) }

// Unwrap returns [ErrInsecure].
func (e *InsecureError) Unwrap() error { return ErrInsecure }

// CheckPrivate returns an [*InsecureError] for a file or directory that its group or the world
// can read or write, or that another user owns. If there is no file, it returns nil.
func CheckPrivate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("examine %q: %w", path, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		fix := fmt.Sprintf("sudo chown %d %s", os.Geteuid(), wire.Quote(path))
		if os.Geteuid() == 0 {
			fix = fmt.Sprintf("sudo -u '#%d' rbee-vault ...", st.Uid)
		}
		return &InsecureError{Path: path, Rule: fmt.Sprintf("belongs to user %d, not to you (%d)", st.Uid, os.Geteuid()), Fix: fix}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		want := "600"
		if info.IsDir() {
			want = "700"
		}
		return &InsecureError{Path: path, Rule: fmt.Sprintf("is open to others (mode %04o)", mode), Fix: fmt.Sprintf("chmod %s %s", want, wire.Quote(path))}
	}
	return nil
}

// makeDir creates a directory that only its owner can enter, and flushes it. If the directory
// exists, it is checked.
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

// checkDir checks that the directory of a file exists, before anything is made.
func checkDir(dir string) error {
	ok, err := durable.Exists(dir)
	if err == nil && !ok {
		err = fmt.Errorf("directory %q: %w", dir, fs.ErrNotExist)
	}
	return err
}
