package registry

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWatchSharesNothing: when a caller modifies a change, neither the next comparison nor
// another caller sees that.
func TestWatchSharesNothing(t *testing.T) {
	before := []Node{richNode()}
	after := []Node{richNode().normalized()}
	after[0].SSHUser = "other"
	for c := range Changes(before, after) {
		for _, n := range []*Node{c.Before, c.After} {
			n.Name = "changed"
			n.Backends[0] = "changed"
			n.Devices["changed"] = 1
			n.Labels["changed"] = "1"
		}
	}
	want := richNode()
	if diff := cmp.Diff(want, before[0]); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	want.SSHUser = "other"
	if diff := cmp.Diff(want, after[0]); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
}
