package registry

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWatchSharesNothing: when a caller modifies a change, neither the next comparison nor
// another caller sees that.
func TestWatchSharesNothing(t *testing.T) {
	n, changed := richNode(), richNode().normalized()
	changed.SSHUser = "other"
	before, after := []*Node{&n}, []*Node{&changed}
	for c := range (Snapshot{after}).Since(Snapshot{before}) {
		for _, n := range []*Node{c.Before, c.After} {
			n.Name = "changed"
			n.Backends[0] = "changed"
			n.Devices["changed"] = 1
			n.Labels["changed"] = "1"
		}
	}
	want := richNode()
	if diff := cmp.Diff(want, *before[0]); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	want.SSHUser = "other"
	if diff := cmp.Diff(want, *after[0]); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
}
