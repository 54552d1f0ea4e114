package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestExecGivesWay: another process rotates the vault's key while a command runs on a node,
// and exec goes on to the next node.
func TestExecGivesWay(t *testing.T) {
	h, server := oneHive(t)
	h.add("hive-02", "rbee@test", server, true)
	fifo := filepath.Join(h.home, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := startProcess(t, h.env, nil, out, "exec", "hive-*", "--parallel", "1", "--", "if test -p "+fifo+"; then cat "+fifo+"; rm "+fifo+"; fi; echo in")
	out.Close()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // waits until the command reads
	if err != nil {
		t.Fatal(err)
	}
	h.must("rotate")
	w.Close()
	if code := p.ends(); code != exitOK {
		t.Errorf("exit code %d: %s", code, &p.stderr)
	}
	if said, err := io.ReadAll(r); err != nil || string(said) != "hive-01\tin\nhive-02\tin\n" {
		t.Errorf("output %q, %v", said, err)
	}
}

// TestWatchGivesWay: another process rotates the vault's key between two rounds, and the
// watch goes on.
func TestWatchGivesWay(t *testing.T) {
	h, _ := oneHive(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := startProcess(t, h.env, nil, w, "check", "--watch", "--interval", "1s")
	w.Close()
	line := make([]byte, 4096)
	if n, err := r.Read(line); err != nil || !strings.Contains(string(line[:n]), "\tonline\t") {
		t.Fatalf("the first round: %q, %v: %s", line[:n], err, &p.stderr)
	}
	h.must("rotate")
	h.must("node", "update", "hive-01", "--ssh-port", "1")
	if n, err := r.Read(line); err != nil || !strings.Contains(string(line[:n]), "refused") {
		t.Fatalf("after the rotation: %q, %v: %s", line[:n], err, &p.stderr)
	}
	h.must("rotate")
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.ends(); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, &p.stderr)
	}
}
