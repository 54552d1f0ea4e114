package registry

import (
	"encoding/json"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

var (
	_ json.Marshaler   = Node{}
	_ json.Unmarshaler = (*Node)(nil)
)

// nodeJSON is the JSON form of a Node: twelve fields, null where unknown, and three that
// are there where they say something.
type nodeJSON struct {
	Name          string            `json:"node_name"`
	SSHHost       string            `json:"ssh_host"`
	SSHPort       uint16            `json:"ssh_port"`
	SSHUser       string            `json:"ssh_user"`
	SSHKeyPath    *string           `json:"ssh_key_path"`
	GitRepoURL    string            `json:"git_repo_url"`
	GitBranch     string            `json:"git_branch"`
	InstallPath   string            `json:"install_path"`
	LastConnected *int64            `json:"last_connected_unix"`
	Status        Status            `json:"status"`
	Backends      []string          `json:"backends"`
	Devices       map[string]uint32 `json:"devices"`

	ProxyJump string            `json:"proxy_jump,omitempty"`
	Note      string            `json:"note,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// MarshalJSON returns n on one line: twelve fields in a fixed order, null where
// unknown, then proxy_jump, note and labels, left out where the node has none. Backends,
// devices and labels are sorted; there are no HTML escapes. (json.Marshal adds HTML
// escapes to the result. Call this method, or use an Encoder with
// SetEscapeHTML(false).) Text that is not UTF-8 is ErrInvalid. Nothing else is
// checked.
func (n Node) MarshalJSON() ([]byte, error) {
	n = n.normalized()
	w := nodeJSON{
		Name:        n.Name,
		SSHHost:     n.SSHHost,
		SSHPort:     n.SSHPort,
		SSHUser:     n.SSHUser,
		GitRepoURL:  n.GitRepoURL,
		GitBranch:   n.GitBranch,
		InstallPath: n.InstallPath,
		Status:      n.Status,
		Backends:    n.Backends,
		Devices:     n.Devices,
		ProxyJump:   n.ProxyJump,
		Note:        n.Note,
		Labels:      n.Labels,
	}
	if n.SSHKeyPath != "" {
		w.SSHKeyPath = &n.SSHKeyPath
	}
	if !n.LastConnected.IsZero() {
		seconds := n.LastConnected.Unix()
		w.LastConnected = &seconds
	}
	texts := append([]string{n.Name, n.SSHHost, n.SSHUser, n.SSHKeyPath, n.GitRepoURL, n.GitBranch,
		n.InstallPath, string(n.Status), n.ProxyJump, n.Note}, n.Backends...)
	for name := range n.Devices {
		texts = append(texts, name)
	}
	for key, value := range n.Labels {
		texts = append(texts, key, value)
	}
	return wire.MarshalTexts(w, texts...)
}

// UnmarshalJSON reads the form that MarshalJSON writes, with the fields in any order.
// Fields that can be null or left out may be absent or null. An absent ssh_port is 22, and an absent
// status is unknown. All other fields are required. A field that is unknown,
// repeated or of the wrong type is refused, and so is a value that Validate refuses.
// Errors are ErrInvalid; n is then unchanged.
func (n *Node) UnmarshalJSON(data []byte) error { return n.unmarshal(data) }

// unmarshal is UnmarshalJSON, and takes more fields.
func (n *Node) unmarshal(data []byte, more ...wire.Field) error {
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
		return err
	}
	if lastConnected >= 0 {
		got.LastConnected = time.Unix(lastConnected, 0)
	}
	got.Status = Status(status)
	got = got.normalized()
	if err := got.validate(); err != nil {
		return err
	}
	*n = got
	return nil
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
