package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// linkOrRename links. If the file system has no links (FAT, as on many USB sticks), it renames
// without replacing.
func linkOrRename(oldPath, newPath string) error {
	err := os.Link(oldPath, newPath)
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	return renameNew(oldPath, newPath)
}

// renameNew renames. It fails if newPath exists.
func renameNew(oldPath, newPath string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, oldPath, unix.AT_FDCWD, newPath, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "renameat2", Old: oldPath, New: newPath, Err: err}
	}
	return nil
}

func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) { // the file system cannot
		err = errors.ErrUnsupported
	}
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

// NetworkFS returns the name of the file system of a directory, if it is a network file system
// or one that a program serves. For a local one it returns "".
func NetworkFS(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return networkFS[uint32(st.Type)], nil
}
