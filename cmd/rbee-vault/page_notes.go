package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
)

// mostNotes bounds the lines that are kept while the page has the terminal.
const mostNotes = 100

// notes is standard error, which keeps its lines back while the page has the terminal.
type notes struct {
	to io.Writer

	mu      sync.Mutex // guards what follows
	holding bool
	lines   []string // kept back, each once
}

// holdNotes puts notes in the place of standard error.
func holdNotes(u *ui) *notes {
	n := &notes{to: u.err}
	u.err = n
	return n
}

// Write implements [io.Writer].
func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.holding {
		return n.to.Write(p)
	}
	for line := range bytes.Lines(p) {
		text := strings.TrimSuffix(string(line), "\n")
		if n.lines = slices.DeleteFunc(n.lines, func(l string) bool { return l == text }); len(n.lines) == mostNotes {
			n.lines = n.lines[1:]
		}
		n.lines = append(n.lines, text)
	}
	return len(p), nil
}

// hold keeps lines back from now on.
func (n *notes) hold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holding = true
}

// warning returns the last warning that was kept back, or "".
func (n *notes) warning() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, line := range slices.Backward(n.lines) {
		if strings.HasPrefix(line, "warning: ") {
			return line
		}
	}
	return ""
}

// print prints what was kept back, and keeps nothing back any longer.
func (n *notes) print() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holding = false
	for _, line := range n.lines {
		io.WriteString(n.to, line+"\n")
	}
	n.lines = nil
}
