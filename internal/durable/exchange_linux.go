package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// PutAside gives the file at path the name aside, in the same directory, and puts a link to
// target there in its place. There is always one or the other at path. If it returns an error,
// nothing has changed; only if the flush failed, it may have. A link that an interrupted run
// left at aside is used; any other file there is never replaced: the error matches
// [fs.ErrExist].
//
// The order: link at aside, fsync the directory, exchange the two names, fsync the directory.
func PutAside(path, aside, target string) error {
	dir := filepath.Dir(path)
	if err := os.Symlink(target, aside); err != nil {
		if there, e := os.Readlink(aside); !errors.Is(err, fs.ErrExist) || e != nil || there != target {
			return err
		}
	}
	err := OS{}.SyncDir(dir)
	if err == nil {
		err = exchange(path, aside)
	}
	if err != nil {
		os.Remove(aside)
		return err
	}
	return OS{}.SyncDir(dir)
}

// PutBack undoes [PutAside].
func PutBack(path, aside string) error {
	if err := exchange(path, aside); err != nil {
		return err
	}
	if err := os.Remove(aside); err != nil {
		return err
	}
	return OS{}.SyncDir(filepath.Dir(path))
}

// exchange swaps two names of one file system, at one moment.
func exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}
