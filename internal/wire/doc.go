// Package wire is how values are written as text: the one JSON line, times, text that is
// safe on a terminal, shell quoting. It knows nothing of what the values mean.
package wire
