package durable

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Openers returns the other processes that have the file at path open, as /proc shows them: of
// other users only to root. Without /proc it returns nothing.
func Openers(path string) []Holder {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	processes, _ := os.ReadDir("/proc")
	var openers []Holder
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", p.Name())
		descriptors, _ := os.ReadDir(filepath.Join(dir, "fd"))
		for _, d := range descriptors {
			if open, err := os.Stat(filepath.Join(dir, "fd", d.Name())); err == nil && os.SameFile(open, info) {
				comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
				openers = append(openers, Holder{PID: pid, Program: strings.TrimSpace(string(comm))})
				break
			}
		}
	}
	return openers
}
