package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// harden turns off core dumps, which would hold keys, stops other processes of the user
// from attaching to this one, and makes new files private. What the system does not allow
// is skipped: see hardened.
func harden() {
	syscall.Umask(0o077)
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	notDumpable()
}

// hardened returns an error if core dumps are possible.
func hardened() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || dumpable() {
		return errors.New("this system does not let the program turn off core dumps, and one could hold keys")
	}
	return nil
}
