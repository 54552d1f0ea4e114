package registry

import (
	"bytes"
	"fmt"
	"io"
)

// Caps of ReadNDJSON, in bytes.
const (
	maxNodeLine  = 64 << 10
	maxNodeBytes = 256 << 20
)

// ReadNDJSON reads nodes as `node list --json` prints them: one JSON object a line. A
// line that is no node is skipped, with the reason. A file of more than 256 MB, or
// with more than [MaxImport] nodes, is ErrInvalid.
func ReadNDJSON(r io.Reader) (ImportSet, error) {
	var set ImportSet
	for line, err := range eachLine(r, maxNodeLine, maxNodeBytes) {
		if err != nil {
			return ImportSet{}, fmt.Errorf("read nodes: %w", err)
		}
		text := bytes.TrimSpace(line.text)
		if line.long {
			set.skip(Problem{line.where(), fmt.Sprintf("it has more than %d bytes", maxNodeLine)})
			continue
		}
		if len(text) == 0 {
			continue
		}
		var node Node
		if err := node.UnmarshalJSON(text); err != nil {
			set.skip(Problem{line.where(), err.Error()})
			continue
		}
		if err := set.append(node); err != nil {
			return ImportSet{}, fmt.Errorf("read nodes: %w", err)
		}
	}
	return set, nil
}
