package durable

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Holder is a process that holds a lock, or has a file open.
type Holder struct {
	PID     int
	Program string // its short name, or "" if it is not known
}

func (h Holder) String() string {
	if h.Program == "" {
		return fmt.Sprintf("pid %d", h.PID)
	}
	return fmt.Sprintf("%s (pid %d)", h.Program, h.PID)
}

// Holders returns the other processes that hold a flock on the file at path, as /proc/locks
// lists them. On a system without that file, or from another pid namespace, it returns nothing.
// It is for messages, not for decisions.
func Holders(path string) []Holder {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return nil
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil
	}
	defer f.Close()
	var holders []Holder
	for s := bufio.NewScanner(f); s.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
		fields := strings.Fields(s.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" {
			continue // a waiter has "->" in the second field
		}
		pid, err := strconv.Atoi(fields[4])
		if err != nil || pid <= 0 || pid == os.Getpid() {
			continue
		}
		// Only the inode is compared: on some file systems (btrfs, overlayfs) stat and
		// /proc/locks show different devices.
		id := strings.Split(fields[5], ":")
		if id[len(id)-1] != strconv.FormatUint(st.Ino, 10) {
			continue
		}
		// The list may change while it is read, and then show a process twice.
		if slices.ContainsFunc(holders, func(h Holder) bool { return h.PID == pid }) {
			continue
		}
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		holders = append(holders, Holder{PID: pid, Program: strings.TrimSpace(string(comm))})
	}
	return holders
}
