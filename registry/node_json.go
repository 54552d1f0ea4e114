package registry

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

var (
	_ json.Marshaler   = Node{}
	_ json.Unmarshaler = (*Node)(nil)
)

// MarshalJSON returns n on one line: twelve fields in a fixed order, null where
// unknown, then proxy_jump, note and labels, left out where the node has none. Backends,
// devices and labels are sorted; there are no HTML escapes. (json.Marshal adds HTML
// escapes to the result. Call this method, or use an Encoder with
// SetEscapeHTML(false).) Text that is not UTF-8 is ErrInvalid. Nothing else is
// checked.
func (n Node) MarshalJSON() ([]byte, error) { return n.AppendJSON(nil) }

// AppendJSON appends what MarshalJSON returns.
func (n Node) AppendJSON(buf []byte) ([]byte, error) {
	l := wire.NewLine(buf)
	l.Text("node_name", n.Name)
	l.Text("ssh_host", canonicalHost(n.SSHHost))
	l.Int("ssh_port", int64(n.SSHPort))
	l.Text("ssh_user", n.SSHUser)
	l.Nullable("ssh_key_path", n.SSHKeyPath)
	l.Text("git_repo_url", n.GitRepoURL)
	l.Text("git_branch", n.GitBranch)
	l.Text("install_path", n.InstallPath)
	if n.LastConnected.IsZero() {
		l.Null("last_connected_unix")
	} else {
		l.Int("last_connected_unix", n.LastConnected.Unix())
	}
	l.Text("status", string(cmp.Or(n.Status, StatusUnknown)))
	if n.Backends == nil {
		l.Null("backends")
	} else {
		l.Name("backends")
		l.Open('[')
		for _, name := range normalizeBackends(n.Backends) {
			l.Item(name)
		}
		l.Close(']')
	}
	if n.Devices == nil {
		l.Null("devices")
	} else {
		l.Name("devices")
		l.Open('{')
		for _, name := range sortedKeys(n.Devices) {
			l.Key(name)
			l.Number(int64(n.Devices[name]))
		}
		l.Close('}')
	}
	n.appendDetails(&l)
	return l.End()
}

// appendDetails appends the fields that are left out where they say nothing.
func (n Node) appendDetails(l *wire.Line) {
	if n.ProxyJump != "" {
		l.Text("proxy_jump", n.ProxyJump)
	}
	if n.Note != "" {
		l.Text("note", n.Note)
	}
	if len(n.Labels) > 0 {
		l.Name("labels")
		l.Open('{')
		for _, key := range sortedKeys(n.Labels) {
			l.Key(key)
			l.Value(n.Labels[key])
		}
		l.Close('}')
	}
}

func sortedKeys[T any](values map[string]T) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// UnmarshalJSON reads the form that MarshalJSON writes, with the fields in any order.
// Fields that can be null or left out may be absent or null. An absent ssh_port is 22, and an absent
// status is unknown. All other fields are required. A field that is unknown,
// repeated or of the wrong type is refused, and so is a value that Validate refuses.
// Errors are ErrInvalid; n is then unchanged.
func (n *Node) UnmarshalJSON(data []byte) error { return n.unmarshal(data) }

// unmarshal is UnmarshalJSON, and takes more fields.
func (n *Node) unmarshal(data []byte, more ...wire.Field) error {
	got, ok := scanNode(string(data))
	if !ok {
		var err error
		if got, err = parseNode(data, more...); err != nil {
			return err
		}
	}
	got.normalize()
	if err := got.validate(); err != nil {
		return err
	}
	*n = got
	return nil
}

// parseNode parses any JSON of a node.
func parseNode(data []byte, more ...wire.Field) (Node, error) {
	got := Node{SSHPort: DefaultSSHPort}
	lastConnected := int64(-1)
	var status string
	err := wire.UnmarshalObject(data, append([]wire.Field{
		{Name: "node_name", Value: &got.Name, Required: true},
		{Name: "ssh_host", Value: &got.SSHHost, Required: true},
		{Name: "ssh_port", Value: &got.SSHPort},
		{Name: "ssh_user", Value: &got.SSHUser, Required: true},
		{Name: "ssh_key_path", Value: &got.SSHKeyPath, Nullable: true},
		{Name: "git_repo_url", Value: &got.GitRepoURL, Required: true},
		{Name: "git_branch", Value: &got.GitBranch, Required: true},
		{Name: "install_path", Value: &got.InstallPath, Required: true},
		{Name: "last_connected_unix", Value: (*optionalUnix)(&lastConnected), Nullable: true},
		{Name: "status", Value: &status},
		{Name: "backends", Value: &got.Backends, Nullable: true},
		{Name: "devices", Value: &got.Devices, Nullable: true},
		{Name: "proxy_jump", Value: &got.ProxyJump, Nullable: true},
		{Name: "note", Value: &got.Note, Nullable: true},
		{Name: "labels", Value: &got.Labels, Nullable: true},
	}, more...))
	if err != nil {
		return Node{}, err
	}
	if lastConnected >= 0 {
		got.LastConnected = time.Unix(lastConnected, 0)
	}
	got.Status = Status(status)
	return got, nil
}

// scanNode parses the form that MarshalJSON writes, many times faster than parseNode does.
// It may fail for any text, which parseNode then decides about.
func scanNode(line string) (n Node, ok bool) {
	s := wire.NewScan(line)
	s.Literal(`"node_name":`)
	n.Name = s.Text()
	s.Literal(`,"ssh_host":`)
	n.SSHHost = s.Text()
	s.Literal(`,"ssh_port":`)
	port := s.Int()
	n.SSHPort = uint16(port)
	s.Literal(`,"ssh_user":`)
	n.SSHUser = s.Text()
	s.Literal(`,"ssh_key_path":`)
	n.SSHKeyPath = s.Nullable()
	s.Literal(`,"git_repo_url":`)
	n.GitRepoURL = s.Text()
	s.Literal(`,"git_branch":`)
	n.GitBranch = s.Text()
	s.Literal(`,"install_path":`)
	n.InstallPath = s.Text()
	s.Literal(`,"last_connected_unix":`)
	if !s.Try("null") {
		seconds := s.Int()
		n.LastConnected = time.Unix(seconds, 0).UTC()
		ok = validUnix(seconds)
	} else {
		ok = true
	}
	s.Literal(`,"status":`)
	n.Status = Status(s.Text())
	s.Literal(`,"backends":`)
	n.Backends = scanBackends(s)
	s.Literal(`,"devices":`)
	if n.Devices = scanMap(s, func() uint32 {
		count := s.Int()
		ok = ok && count <= math.MaxUint32
		return uint32(count)
	}); n.Devices == nil {
		s.Literal("null")
	}
	if s.Try(`,"proxy_jump":`) {
		n.ProxyJump = s.Text()
	}
	if s.Try(`,"note":`) {
		n.Note = s.Text()
	}
	if s.Try(`,"labels":`) {
		n.Labels = scanMap(s, s.Text)
		ok = ok && n.Labels != nil
	}
	return n, ok && port <= math.MaxUint16 && s.End()
}

// scanBackends returns nil for null.
func scanBackends(s *wire.Scan) []string {
	if s.Try("null") {
		return nil
	}
	s.Literal("[")
	names := []string{}
	for !s.Try("]") && !s.Failed() {
		if len(names) > 0 {
			s.Literal(",")
		}
		names = append(names, s.Text())
	}
	return names
}

// scanMap returns nil where no object with sorted names is next.
func scanMap[T any](s *wire.Scan, value func() T) map[string]T {
	if !s.Try("{") {
		return nil
	}
	values := map[string]T{}
	last := ""
	for !s.Try("}") && !s.Failed() {
		if len(values) > 0 {
			s.Literal(",")
		}
		name := s.Text()
		if name <= last {
			return nil // also an empty name, which is not valid
		}
		s.Literal(":")
		values[name], last = value(), name
	}
	return values
}

// optionalUnix refuses negative seconds, so a negative value can mean that there is
// no time.
type optionalUnix int64

func (u *optionalUnix) UnmarshalJSON(data []byte) error {
	var seconds int64
	if err := json.Unmarshal(data, &seconds); err != nil {
		return err
	}
	if !validUnix(seconds) {
		return &FieldError{Field: "last_connected_unix", Rule: ruleUnix}
	}
	*u = optionalUnix(seconds)
	return nil
}
