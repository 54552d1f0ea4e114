package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// harden keeps keys out of core dumps and away from other processes of the user
// that would attach to this one, as far as the system lets it.
func harden() {
	syscall.Umask(0o077)
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	notDumpable()
}
