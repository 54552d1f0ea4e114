package agent

import "fmt"

// peer is the process that made a connection.
type peer struct {
	uid     int
	pid     int
	program string // its file, or its name in quotes; may be empty
}

// String names the process for the audit log. A process may replace its program after it
// connected, so the name is a hint.
func (p peer) String() string {
	if p.program == "" {
		return fmt.Sprintf("pid %d", p.pid)
	}
	return fmt.Sprintf("pid %d (%s)", p.pid, p.program)
}
