package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// checkPlace refuses places in which the locks do not protect the database. One is a database
// with a second name: under that name a program uses other locks and another log. The other,
// for writing, is a file system that other machines also write to.
func (p paths) checkPlace(cfg Config) error {
	if info, err := os.Stat(p.db); err == nil && durable.Links(info) > 1 {
		if err := p.checkNames(); err != nil {
			return err
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

// checkNames refuses a database with a second name that is not our own, left by an interrupted
// link.
func (p paths) checkNames() error {
	// The own names are read first: if a link is being made meanwhile, it does not count as
	// somebody else's.
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
	return nil
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

// checkPrivate checks the directory and every existing file of a vault. What is no vault but a
// database in plaintext is named as that: its owner is not told to change its mode.
func (p paths) checkPrivate() error {
	err := p.checkModes()
	if err != nil {
		if _, e := peekKeyID(p.db); errors.Is(e, ErrPlaintext) {
			return e
		}
	}
	return err
}

func (p paths) checkModes() error {
	for _, path := range append([]string{p.dir, p.db, p.slots, p.lock, p.write, p.turn, p.anchor, p.fresh}, sqlcipher.SideFiles(p.db)...) {
		if err := CheckPrivate(path); err != nil {
			return err
		}
	}
	return nil
}
