//go:build !linux

package durable

import (
	"errors"
	"os"
)

func linkOrRename(oldPath, newPath string) error { return os.Link(oldPath, newPath) }

func renameNew(oldPath, newPath string) error {
	return &os.LinkError{Op: "rename", Old: oldPath, New: newPath, Err: errors.ErrUnsupported}
}

func exchange(a, b string) error {
	return &os.LinkError{Op: "exchange", Old: a, New: b, Err: errors.ErrUnsupported}
}

// NetworkFS always returns "": on this system it is not known.
func NetworkFS(string) (string, error) { return "", nil }
