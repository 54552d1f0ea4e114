package unixsocket

import "fmt"

// Peer is the process that made a connection.
type Peer struct {
	UID     int
	PID     int
	Program string // its file, or its name in quotes; may be empty
}

// String names the process for the audit log. A process may replace its program after it
// connected, so the name is a hint.
func (p Peer) String() string {
	if p.Program == "" {
		return fmt.Sprintf("pid %d", p.PID)
	}
	return fmt.Sprintf("pid %d (%s)", p.PID, p.Program)
}
