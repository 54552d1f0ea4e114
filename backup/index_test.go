package backup

import (
	"maps"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// TestIndexJumps: each node is reached through nodes that are there, and not through too many.
func TestIndexJumps(t *testing.T) {
	longest := map[string]string{"0": "", "1": "0", "2": "1", "3": "2", "4": "3", "5": "4", "6": "5", "7": "6", "8": "7", "a": "0"}
	longer := maps.Clone(longest)
	longer["9"] = "8"
	for _, test := range []struct {
		name  string
		jumps map[string]string
		good  bool
	}{
		{"none", nil, true},
		{"the longest", longest, true},
		{"too long", longer, false},
		{"missing", map[string]string{"a": "b"}, false},
		{"itself", map[string]string{"a": "a"}, false},
		{"circle", map[string]string{"a": "b", "b": "c", "c": "a"}, false},
	} {
		x := newIndex(Counts{})
		for _, name := range slices.Sorted(maps.Keys(test.jumps)) {
			if err := x.addNode(registry.Node{Name: name, ProxyJump: test.jumps[name]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.checkJumps(); (err == nil) != test.good {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
