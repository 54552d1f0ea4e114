package registry

import (
	"bytes"
	"fmt"
	"io"

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
		set.Nodes = append(set.Nodes, node)
	}
	return set, nil
}
