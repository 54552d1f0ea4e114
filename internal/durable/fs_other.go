//go:build !linux

package durable

import "os"

func linkOrRename(oldPath, newPath string) error { return os.Link(oldPath, newPath) }

// NetworkFS cannot tell here.
func NetworkFS(string) (string, error) { return "", nil }
