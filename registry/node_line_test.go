package registry

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// nodeJSON is the JSON form of a node as encoding/json writes it.
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
	ProxyJump     string            `json:"proxy_jump,omitempty"`
	Note          string            `json:"note,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
}

// marshalNode encodes a node by reflection.
func marshalNode(n Node) ([]byte, error) {
	n = n.normalized()
	w := nodeJSON{
		Name:        n.Name,
		SSHHost:     n.SSHHost,
		SSHPort:     n.SSHPort,
		SSHUser:     n.SSHUser,
		SSHKeyPath:  wire.Nullable(n.SSHKeyPath),
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
	if !n.LastConnected.IsZero() {
		seconds := n.LastConnected.Unix()
		w.LastConnected = &seconds
	}
	return wire.Marshal(w)
}

// anyNode draws a node with any values, valid or not, but UTF-8.
func anyNode(t *rapid.T) Node {
	text := rapid.String()
	return Node{
		Name:          text.Draw(t, "name"),
		SSHHost:       rapid.OneOf(text, rapid.Just("::FFFF:10.0.0.1"), rapid.Just("Host.Example")).Draw(t, "host"),
		SSHPort:       rapid.Uint16().Draw(t, "port"),
		SSHUser:       text.Draw(t, "user"),
		SSHKeyPath:    text.Draw(t, "key path"),
		GitRepoURL:    text.Draw(t, "url"),
		GitBranch:     text.Draw(t, "branch"),
		InstallPath:   text.Draw(t, "path"),
		LastConnected: time.Unix(rapid.Int64Range(-1, maxUnix).Draw(t, "contact"), 0),
		Status:        Status(text.Draw(t, "status")),
		Backends:      rapid.SliceOfN(text, -1, 4).Draw(t, "backends"),
		Devices:       rapid.MapOfN(text, rapid.Uint32(), -1, 4).Draw(t, "devices"),
		ProxyJump:     text.Draw(t, "jump"),
		Note:          text.Draw(t, "note"),
		Labels:        rapid.MapOfN(text, text, -1, 4).Draw(t, "labels"),
	}
}

// TestNodeLine: a node encodes itself as encoding/json would.
func TestNodeLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := anyNode(t)
		want, err := marshalNode(n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.AppendJSON([]byte("before"))
		if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("%s, want %s: %v", got, want, err)
		}
	})
}

// FuzzScanNode: what scanNode reads, parseNode reads too, as the same node.
func FuzzScanNode(f *testing.F) {
	for _, n := range []Node{testNode(), richNode(), bareNode("hive-02")} {
		line, err := n.MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		if _, ok := scanNode(string(line)); !ok && n.Note == "" { // richNode's is not ASCII
			f.Errorf("%s is not scanned", line)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got, ok := scanNode(string(line))
		if !ok {
			return
		}
		want, err := parseNode(line)
		if err != nil {
			t.Fatalf("%s is scanned, but not parsed: %v", line, err)
		}
		got.normalize()
		want.normalize()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	})
}
