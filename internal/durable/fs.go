package durable

import (
	"io"
	"os"
	"syscall"
)

// FS is the set of file system calls whose order decides what a crash leaves. It is an
// interface so that a test can make each call fail, or stop the process, before or after the
// call takes effect. Programs use only [OS].
type FS interface {
	// CreateNew creates the file for writing, with mode 0600. If there is one, the error
	// matches [fs.ErrExist].
	CreateNew(path string) (File, error)
	Rename(oldPath, newPath string) error
	// Link gives a finished file its name and never replaces another file. If newPath exists,
	// the error matches [fs.ErrExist]. If the file system has no links, oldPath is gone
	// afterwards.
	Link(oldPath, newPath string) error
	Remove(path string) error
	// Symlink makes a symbolic link. If path exists, the error matches [fs.ErrExist].
	Symlink(target, path string) error
	// Exchange swaps two names at one moment. Where the system cannot, the error matches
	// [errors.ErrUnsupported].
	Exchange(a, b string) error
	// RenameNew renames and never replaces a file. If newPath exists, the error matches
	// [fs.ErrExist].
	RenameNew(oldPath, newPath string) error
	// Sync flushes the file at path to the disk.
	Sync(path string) error
	// SyncDir flushes a directory, which holds the names of its files.
	SyncDir(dir string) error
}

// File is a file being written.
type File interface {
	io.Writer
	Name() string
	Sync() error
	Close() error
}

// OS is the real file system.
type OS struct{}

var _ FS = OS{}

// CreateNew implements [FS].
func (OS) CreateNew(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Rename implements [FS].
func (OS) Rename(oldPath, newPath string) error { return os.Rename(oldPath, newPath) }

// Link implements [FS].
func (OS) Link(oldPath, newPath string) error { return linkOrRename(oldPath, newPath) }

// Remove implements [FS].
func (OS) Remove(path string) error { return os.Remove(path) }

// Symlink implements [FS].
func (OS) Symlink(target, path string) error { return os.Symlink(target, path) }

// Exchange implements [FS].
func (OS) Exchange(a, b string) error { return exchange(a, b) }

// RenameNew implements [FS].
func (OS) RenameNew(oldPath, newPath string) error { return renameNew(oldPath, newPath) }

// Sync implements [FS].
func (OS) Sync(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// SyncDir implements [FS].
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// Links returns the number of names of a file.
func Links(info os.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Nlink) }
