package main

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// harden keeps keys out of core dumps and away from other processes of the user
// that would attach to this one, as far as the system lets it; and new files from
// others.
func harden() {
	syscall.Umask(0o077)
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	notDumpable()
}

// hardened returns an error where the system did not allow it.
func hardened() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || dumpable() {
		return errors.New("this system does not let the program turn them off: keys could be left in one")
	}
	return nil
}
