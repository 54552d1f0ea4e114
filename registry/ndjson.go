package registry

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// maxNodeLine caps a line of ReadNDJSON, in bytes.
const maxNodeLine = 64 << 10

// ReadNDJSON reads nodes as `node list --json` prints them: one JSON object a line. A
// line that is no node is skipped, with the reason.
func ReadNDJSON(r io.Reader) (ImportSet, error) {
	var set ImportSet
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxNodeLine)
	for n := 1; s.Scan(); n++ {
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 {
			continue
		}
		var node Node
		if err := node.UnmarshalJSON(line); err != nil {
			set.Skipped = append(set.Skipped, Problem{fmt.Sprintf("line %d", n), err.Error()})
			continue
		}
		set.Nodes = append(set.Nodes, node)
	}
	if err := s.Err(); err != nil {
		return ImportSet{}, fmt.Errorf("%w: read nodes: %w", ErrInvalid, err)
	}
	return set, nil
}
