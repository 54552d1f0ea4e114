package registry

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Limits of ReadNDJSON, in bytes.
const (
	maxNodeLine  = 64 << 10
	maxNodeBytes = 256 << 20
)

// ReadNDJSON reads nodes as `node list --json` prints them: one JSON object on each
// line. Of the fields that it prints besides those of a node, ssh_key and host_keys, the values
// are ignored. A line that is not a valid node is skipped, with the reason. A file of more
// than 256 MB, or of more than [MaxImport] rows, is ErrInvalid.
func ReadNDJSON(r io.Reader) (ImportSet, error) {
	var set ImportSet
	known := newKnownValues()
	for line, err := range eachLine(r, maxNodeLine, maxNodeBytes) {
		if err != nil {
			return ImportSet{}, fmt.Errorf("read nodes: %w", err)
		}
		text := bytes.TrimSpace(line.text)
		if len(text) == 0 && !line.long {
			continue
		}
		if err := set.checkRoom(); err != nil {
			return ImportSet{}, fmt.Errorf("read nodes: %w", err)
		}
		if line.long {
			set.skip(Problem{line.where(), fmt.Sprintf("it has more than %d bytes", maxNodeLine)})
			continue
		}
		var (
			node     Node
			sshKey   string
			hostKeys []string
		)
		err := node.unmarshal(text, wire.Field{Name: "ssh_key", Value: &sshKey, Nullable: true},
			wire.Field{Name: "host_keys", Value: &hostKeys, Nullable: true})
		if err != nil {
			set.skip(Problem{line.where(), err.Error()})
			continue
		}
		known.share(&node)
		set.addNode(node)
	}
	return set, nil
}

// knownValues keeps one copy of what many nodes have. Of a hundred thousand nodes that are
// imported at once, the values that differ are few.
type knownValues struct {
	texts    map[string]string
	backends map[string][]string
	devices  map[string]map[string]uint32
}

func newKnownValues() *knownValues {
	return &knownValues{texts: map[string]string{}, backends: map[string][]string{}, devices: map[string]map[string]uint32{}}
}

// share replaces the node's values by known ones, so that it does not keep the line that it was
// read from.
func (k *knownValues) share(n *Node) {
	n.Name, n.SSHHost = strings.Clone(n.Name), strings.Clone(n.SSHHost)
	for _, text := range []*string{&n.SSHUser, &n.SSHKeyPath, &n.GitRepoURL, &n.GitBranch, &n.InstallPath, (*string)(&n.Status), &n.ProxyJump, &n.Note} {
		*text = k.text(*text)
	}
	if n.Backends != nil {
		key := formatBackends(n.Backends)
		if _, ok := k.backends[key]; !ok {
			for i, name := range n.Backends {
				n.Backends[i] = k.text(name)
			}
			k.backends[key] = n.Backends
		}
		n.Backends = k.backends[key]
	}
	if n.Devices != nil {
		key := formatDevices(n.Devices)
		if _, ok := k.devices[key]; !ok {
			k.devices[key] = make(map[string]uint32, len(n.Devices))
			for name, count := range n.Devices {
				k.devices[key][k.text(name)] = count
			}
		}
		n.Devices = k.devices[key]
	}
	labels := n.Labels
	if labels != nil {
		n.Labels = make(map[string]string, len(labels))
	}
	for key, value := range labels {
		n.Labels[k.text(key)] = k.text(value)
	}
}

// text returns the known copy of a text.
func (k *knownValues) text(s string) string {
	known, ok := k.texts[s]
	if !ok {
		known = strings.Clone(s)
		k.texts[known] = known
	}
	return known
}
