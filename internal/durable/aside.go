package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// linkSuffix ends the name of a link until it is exchanged with the file. The name says what it
// is: whoever removes it loses nothing.
const linkSuffix = ".link"

// PutAside gives the file at path the name aside, in the same directory, and puts a link to
// target there in its place. There is always one or the other at path, and no file is ever
// replaced: if aside exists, the error matches [fs.ErrExist]. at is the path at which the file
// is afterwards, also after an error: path, aside, or path + ".link" where a call failed and
// could not be undone.
//
// The order: a link at path + ".link", fsync the directory, exchange it with path, rename to
// aside, fsync the directory. A link that an interrupted run left is used.
func PutAside(fsys FS, path, aside, target string) (at string, err error) {
	dir, link := filepath.Dir(path), path+linkSuffix
	file, err := os.Lstat(path)
	if err != nil {
		return path, err
	}
	if _, err := os.Lstat(aside); err == nil {
		return path, &os.PathError{Op: "rename", Path: aside, Err: fs.ErrExist}
	}
	if err := fsys.Symlink(target, link); err != nil {
		if there, e := os.Readlink(link); !errors.Is(err, fs.ErrExist) {
			return path, err
		} else if e != nil || there != target {
			return path, fmt.Errorf("%q is in the way", link) // not ErrExist, which is about aside
		}
	}
	if err = fsys.SyncDir(dir); err == nil {
		err = fsys.Exchange(path, link)
	}
	if err == nil {
		err = fsys.RenameNew(link, aside)
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return putBack(fsys, file, path, aside, link), err
	}
	return aside, nil
}

// PutBack undoes [PutAside]. at is where the file is afterwards.
func PutBack(fsys FS, path, aside string) (at string, err error) {
	file, err := os.Lstat(aside)
	if err != nil {
		return aside, err
	}
	if err = fsys.Exchange(path, aside); err != nil {
		return where(file, path, aside), err
	}
	if err = fsys.Remove(aside); err == nil { // it is the link now
		err = fsys.SyncDir(filepath.Dir(path))
	}
	return path, err
}

// putBack has the file at path again, as far as that is possible, and returns where it is.
func putBack(fsys FS, file os.FileInfo, path, aside, link string) string {
	at := where(file, path, aside, link)
	if at != path && fsys.Exchange(path, at) == nil {
		at = path
	}
	for _, left := range []string{link, aside} {
		if isLink(left) {
			fsys.Remove(left)
		}
	}
	fsys.SyncDir(filepath.Dir(path))
	return at
}

// where returns which of the names the file has.
func where(file os.FileInfo, names ...string) string {
	for _, name := range names {
		if info, err := os.Lstat(name); err == nil && os.SameFile(info, file) {
			return name
		}
	}
	return names[0]
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}
