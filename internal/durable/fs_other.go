//go:build !linux

package durable

import "os"

func linkOrRename(oldPath, newPath string) error { return os.Link(oldPath, newPath) }
