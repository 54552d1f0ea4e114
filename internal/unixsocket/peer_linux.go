package unixsocket

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PeerOf asks the kernel who made the connection.
func PeerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return Peer{}, fmt.Errorf("credentials of the peer: %w", err)
	}
	return Peer{UID: int(cred.Uid), PID: int(cred.Pid), Program: program(int(cred.Pid))}, nil
}

// program returns the file that a process runs, or its name where the file may not be
// read.
func program(pid int) string {
	proc := "/proc/" + strconv.Itoa(pid)
	if file, err := os.Readlink(proc + "/exe"); err == nil {
		return file
	}
	name, err := os.ReadFile(proc + "/comm")
	if err != nil {
		return ""
	}
	return strconv.Quote(strings.TrimSpace(string(name)))
}
