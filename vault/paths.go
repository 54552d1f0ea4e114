package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// paths holds the paths of a vault's files. Each begins with the path of the database.
type paths struct {
	dir    string
	db     string
	slots  string
	lock   string
	write  string
	turn   string
	anchor string
	fresh  string // the database being built
	// rehearsal is the directory of a restore that is tried out.
	rehearsal string
}

// fileTime is the format of times in file names.
const fileTime = "20060102T150405Z"

// newPaths makes path absolute and follows symbolic links. So a vault has one set of side files
// under whatever name it is opened, and a rename replaces the file and not a link to it.
func newPaths(path string) (paths, error) {
	if path == "" {
		return paths{}, fmt.Errorf("%w: no database path is given", ErrInvalid)
	}
	abs, err := resolve(path)
	if err != nil {
		return paths{}, err
	}
	// The driver cuts a name at '?', and takes "file:" for a URI.
	if strings.ContainsAny(abs, "?\x00\n") {
		return paths{}, fmt.Errorf("%w: path %q: the path of a database must not have a question mark, a line break or a NUL", ErrInvalid, abs)
	}
	p := paths{
		dir:    filepath.Dir(abs),
		db:     abs,
		slots:  abs + ".slots",
		lock:   abs + ".lock",
		write:  abs + ".write",
		turn:   abs + ".turn",
		anchor: abs + ".anchor",
		fresh:  abs + ".new",

		rehearsal: abs + ".drill",
	}
	return p, p.checkName(false)
}

// newVaultPaths is newPaths for a new vault.
func newVaultPaths(path string) (paths, error) {
	p, err := newPaths(path)
	if err == nil {
		err = p.checkName(true)
	}
	return p, err
}

// resolve makes a path absolute and follows symbolic links, even if the file does not exist
// yet.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve path %q: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		return filepath.Join(dir, filepath.Base(abs)), nil
	}
	return abs, nil
}

func (p paths) before(version int64) string { return fmt.Sprintf("%s.before-v%d", p.db, version) }

func (p paths) foreignSlots(now time.Time) string {
	return p.slots + ".foreign-" + now.Format(fileTime)
}

func (p paths) replaced(now time.Time) string { return p.db + ".replaced-" + now.Format(fileTime) }

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

// CreateFile writes a secret into a new file of mode 0600. The file is complete and flushed to
// the disk, or it does not exist. It returns [ErrFileExists] if the path is taken, and
// [ErrInvalid] for a name that is reserved for a vault's own files.
func CreateFile(path string, data []byte) error {
	if err := CheckOutput(path, ""); err != nil {
		return err
	}
	return IdentityFile{Path: path}.put(durable.OS{}, data)
}

// ReplaceFile is [CreateFile] for a path that may be taken: what is there is replaced by one
// rename. If it returns an error, it is unchanged, or the flush of the directory failed.
func ReplaceFile(path string, data []byte) error {
	if err := CheckOutput(path, ""); err != nil {
		return err
	}
	return durable.Replace(durable.OS{}, path, data)
}

// checkPrivate checks the directory and every existing file of a vault.
func (p paths) checkPrivate() error {
	for _, path := range append([]string{p.dir, p.db, p.slots, p.lock, p.write, p.turn, p.anchor, p.fresh}, sqlcipher.SideFiles(p.db)...) {
		if err := CheckPrivate(path); err != nil {
			return err
		}
	}
	return nil
}

// checkPlace refuses places in which the locks do not protect the database. One is a database
// with a second name: under that name a program uses other locks and another log. The other,
// for writing, is a file system that other machines also write to.
func (p paths) checkPlace(cfg Config) error {
	// A second name of our own is left by an interrupted link. The own names are read first: if
	// a link is being made meanwhile, it does not count as somebody else's.
	var own []os.FileInfo
	for _, path := range p.beside(func(path string) bool {
		owner, kind := reserved(path)
		return owner == p.db && (kind == freshDatabase || kind == partFile)
	}) {
		if info, err := os.Lstat(path); err == nil {
			own = append(own, info)
		}
	}
	if info, err := os.Stat(p.db); err == nil && info.Mode().IsRegular() {
		names := uint64(1)
		for _, other := range own {
			if os.SameFile(other, info) {
				names++
			}
		}
		if durable.Links(info) > names {
			return &InsecureError{
				Path: p.db,
				Rule: fmt.Sprintf("has %d names (hard links): by another name, a program uses other locks and another log, and rows are lost; close every program that has it open before you fix this", durable.Links(info)),
				Fix:  fmt.Sprintf("cp -p %[1]s %[2]s && mv %[2]s %[1]s", wire.Quote(p.db), wire.Quote(p.db+".single")),
			}
		}
	}
	if cfg.AllowNetworkFS || p.setAside() {
		return nil
	}
	networkFS := cfg.networkFS
	if networkFS == nil {
		networkFS = durable.NetworkFS
	}
	name, err := networkFS(p.dir)
	if err != nil {
		return fmt.Errorf("examine file system: %w", err)
	}
	if name != "" {
		return fmt.Errorf("%w: %q is on %s, where the locks of two machines may not see each other", ErrNetworkFS, p.dir, name)
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
