package registry

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawNode draws a valid node with this name.
func drawNode(t *rapid.T, name string) Node {
	word := rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,10}[a-z0-9]`)
	path := rapid.StringMatching(`/[a-zA-Z0-9 ~$"'<&>é世./-]{0,30}`)
	n := Node{
		Name:        name,
		SSHHost:     rapid.OneOf(rapid.StringMatching(`[a-z][a-z0-9]{0,9}(\.[a-z][a-z0-9]{0,5}){0,3}`), rapid.SampledFrom([]string{"192.0.2.7", "::1", "fe80::1%eth0"})).Draw(t, "host"),
		SSHPort:     rapid.Uint16Range(1, 65535).Draw(t, "port"),
		SSHUser:     rapid.StringMatching(`[a-zA-Z_][a-zA-Z0-9._@+-]{0,20}`).Draw(t, "user"),
		GitRepoURL:  rapid.StringMatching(`(https|ssh|git)://([a-z]{1,5}@)?[a-z]{1,9}\.example\.org(:[1-9][0-9]{0,3})?/[a-zA-Z0-9/._~-]{1,20}`).Draw(t, "url"),
		GitBranch:   rapid.StringMatching(`[a-z]{1,9}(/[a-zA-Z0-9é]{1,9}){0,2}`).Draw(t, "branch"),
		InstallPath: rapid.StringMatching(`~?`).Draw(t, "home") + path.Draw(t, "install"),
		Status:      rapid.SampledFrom([]Status{"", StatusUnknown, StatusOnline, StatusOffline, StatusError}).Draw(t, "status"),
	}
	if rapid.Bool().Draw(t, "has key") {
		n.SSHKeyPath = path.Draw(t, "key path")
	}
	if rapid.Bool().Draw(t, "has contact") {
		n.LastConnected = time.Unix(rapid.Int64Range(0, maxUnix).Draw(t, "contact"), 0)
	}
	if rapid.Bool().Draw(t, "has backends") {
		n.Backends = rapid.SliceOfN(word, 0, 5).Draw(t, "backends")
	}
	if rapid.Bool().Draw(t, "has devices") {
		n.Devices = rapid.MapOfN(word, rapid.Uint32(), 0, 5).Draw(t, "devices")
	}
	if rapid.Bool().Draw(t, "has a note") {
		n.Note = rapid.StringMatching(`[a-zA-Z0-9"'<&>;é世][a-zA-Z0-9 ~$"'<&>é世./-]{0,30}`).Draw(t, "note")
	}
	if rapid.Bool().Draw(t, "has labels") {
		label := rapid.StringMatching(`[a-zA-Z0-9]([a-zA-Z0-9._-]{0,10}[a-zA-Z0-9])?`)
		n.Labels = rapid.MapOfN(label, rapid.OneOf(rapid.Just(""), label), 0, 5).Draw(t, "labels")
	}
	return n
}

// TestAddNodeProperty: AddNode stores its argument, with unknown state taken from the
// stored node. A node is the same after a round trip through JSON.
func TestAddNodeProperty(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), bareNode("bastion")))
	model := make(map[string]Node)
	rapid.Check(t, func(rt *rapid.T) {
		n := drawNode(rt, rapid.SampledFrom([]string{"hive-01", "hive-02"}).Draw(rt, "name"))
		n.ProxyJump = rapid.SampledFrom([]string{"", "bastion"}).Draw(rt, "jump")
		if err := r.AddNode(t.Context(), n); err != nil {
			rt.Fatal(err)
		}
		want := n
		if old, ok := model[n.Name]; ok {
			want = n.withState(old)
		}
		want = want.normalized()
		model[n.Name] = want
		got, err := r.GetNode(t.Context(), n.Name)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("(-want +got):\n%s", diff)
		}
		data, err := got.MarshalJSON()
		if err != nil {
			rt.Fatal(err)
		}
		var back Node
		if err := back.UnmarshalJSON(data); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(got, back); diff != "" {
			rt.Fatalf("after JSON (-want +got):\n%s", diff)
		}
		wantListed(t, r, want)
	})
}
