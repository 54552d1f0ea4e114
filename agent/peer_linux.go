package agent

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who made the connection.
func peerOf(conn *net.UnixConn) (peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer{}, err
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
		return peer{}, fmt.Errorf("credentials of the peer: %w", err)
	}
	return peer{uid: int(cred.Uid), pid: int(cred.Pid), program: program(int(cred.Pid))}, nil
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
