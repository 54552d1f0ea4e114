package registry

import (
	"maps"
	"slices"
	"time"
)

// DefaultSSHPort is the port of a node where none is given.
const DefaultSSHPort = 22

// Status is the result of the last contact with a node.
type Status string

// The four statuses.
const (
	StatusUnknown Status = "unknown"
	StatusOnline  Status = "online"
	StatusOffline Status = "offline"
	StatusError   Status = "error"
)

// Valid reports whether s is one of the four statuses.
func (s Status) Valid() bool {
	switch s {
	case StatusUnknown, StatusOnline, StatusOffline, StatusError:
		return true
	}
	return false
}

// Node is one machine of the fleet. A Node that the package returns shares no
// memory with any other.
type Node struct {
	Name        string // identity; Validate has the rule of every field
	SSHHost     string // DNS name or address, IPv6 without brackets; stored in the canonical form
	SSHPort     uint16
	SSHUser     string
	SSHKeyPath  string // absolute path of a private key on this machine; "": none
	GitRepoURL  string
	GitBranch   string
	InstallPath string // on the node: absolute, or with ~/, which is stored as it is

	LastConnected time.Time         // whole seconds, UTC; zero: never
	Status        Status            // "" on input: StatusUnknown
	Backends      []string          // sorted and unique; nil: unknown
	Devices       map[string]uint32 // number of devices by backend; nil: unknown

	ProxyJump string            // name of the node that this one is reached through; "": none
	Note      string            // one line for people; "": none
	Labels    map[string]string // nil: none
}

// normalized returns n in the form in which it is stored and returned. The result
// shares no memory with n.
func (n Node) normalized() Node {
	n.Devices, n.Labels = maps.Clone(n.Devices), maps.Clone(n.Labels)
	n.Backends = slices.Clone(n.Backends)
	n.normalize()
	return n
}

// normalize is normalized for a node that shares no memory.
func (n *Node) normalize() {
	n.SSHHost = canonicalHost(n.SSHHost)
	if n.Status == "" {
		n.Status = StatusUnknown
	}
	if !n.LastConnected.IsZero() {
		n.LastConnected = time.Unix(n.LastConnected.Unix(), 0).UTC()
	}
	n.Backends = normalizeBackends(n.Backends)
	if len(n.Labels) == 0 {
		n.Labels = nil
	}
}

// normalizeBackends returns the names sorted, each once. Where they are, that is the same
// slice.
func normalizeBackends(names []string) []string {
	sorted := true
	for i := 1; i < len(names); i++ {
		sorted = sorted && names[i-1] < names[i]
	}
	if sorted {
		return names
	}
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

// withState returns n, with its unknown state fields taken from old.
func (n Node) withState(old Node) Node {
	if n.LastConnected.IsZero() {
		n.LastConnected = old.LastConnected
	}
	if n.Status == "" || n.Status == StatusUnknown {
		n.Status = old.Status
	}
	if n.Backends == nil {
		n.Backends = old.Backends
	}
	if n.Devices == nil {
		n.Devices = old.Devices
	}
	return n
}

// withDetails returns n, and what it has not of jump, note and labels taken from old.
func (n Node) withDetails(old Node) Node {
	if n.ProxyJump == "" {
		n.ProxyJump = old.ProxyJump
	}
	if n.Note == "" {
		n.Note = old.Note
	}
	if len(n.Labels) == 0 {
		n.Labels = old.Labels
	}
	return n
}

// sameNode compares normalized nodes of the same name.
func sameNode(a, b Node) bool {
	return sameState(a, b) &&
		a.SSHHost == b.SSHHost &&
		a.SSHPort == b.SSHPort &&
		a.SSHUser == b.SSHUser &&
		a.SSHKeyPath == b.SSHKeyPath &&
		a.GitRepoURL == b.GitRepoURL &&
		a.GitBranch == b.GitBranch &&
		a.InstallPath == b.InstallPath &&
		a.ProxyJump == b.ProxyJump &&
		a.Note == b.Note &&
		maps.Equal(a.Labels, b.Labels)
}

// sameState compares the state of normalized nodes. nil and empty differ.
func sameState(a, b Node) bool {
	return a.Status == b.Status &&
		a.LastConnected.Equal(b.LastConnected) &&
		(a.Backends == nil) == (b.Backends == nil) &&
		slices.Equal(a.Backends, b.Backends) &&
		(a.Devices == nil) == (b.Devices == nil) &&
		maps.Equal(a.Devices, b.Devices)
}
