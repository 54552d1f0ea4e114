package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// memoryDir is a directory in memory that every Linux has. Others cannot remove or rename
// what is ours there (it is sticky).
const memoryDir = "/dev/shm"

// plainPath is a path that ssh and the shell take as it is: ssh hands the one of its
// configuration to a shell, unquoted, for each jump.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._-]*$`)

// maxRuntimeDir leaves room in the path of a socket, which has 107 bytes.
const maxRuntimeDir = 70

// sshDir makes a private directory that is not on a disk: in $XDG_RUNTIME_DIR, or else in
// /dev/shm. The caller removes it.
func sshDir(getenv func(string) string) (string, error) {
	base := getenv("XDG_RUNTIME_DIR")
	if checkRuntimeDir(base) != nil {
		base = memoryDir
	}
	dir, err := os.MkdirTemp(base, "rbee-vault-ssh-") // mode 0700
	if err != nil {
		return "", fmt.Errorf("make a private directory: %w", err)
	}
	return dir, nil
}

func checkRuntimeDir(dir string) error {
	if !plainPath.MatchString(dir) || len(dir) > maxRuntimeDir || filepath.Clean(dir) != dir {
		return errors.New("not a path that ssh can use")
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()) {
		return errors.New("not ours alone")
	}
	return nil
}
