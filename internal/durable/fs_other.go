//go:build !linux

package durable

import "os"

func linkOrRename(oldPath, newPath string) error { return os.Link(oldPath, newPath) }

// NetworkFS always returns "": on this system it is not known.
func NetworkFS(string) (string, error) { return "", nil }
