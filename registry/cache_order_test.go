package registry

import (
	"fmt"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestCacheNeverGoesBack: a node that a slow reader read at an earlier revision replaces
// nothing.
func TestCacheNeverGoesBack(t *testing.T) {
	v := vaulttest.New(t)
	older, err := v.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := Node{Name: "hive-01", SSHHost: "old", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
	if err := New(v).CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	newer, err := v.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &nodeCache{}
	c.set(older, 0, nil, false)
	if c.at(newer) || c.at(vault.Revision{}) || !c.at(older) {
		t.Error("it is not at the revision that it was set to")
	}
	c.apply(newer, 1, nil)
	c.keep(older, n)
	if got, ok := c.node(newer, n.Name); ok {
		t.Errorf("it kept %+v", got)
	}
	c.keep(newer, n)
	if _, ok := c.node(older, n.Name); !ok {
		t.Error("what is newer than asked for is not used")
	}
	if _, ok := c.node(vault.Revision{}, n.Name); ok {
		t.Error("it answers for the first read")
	}
}

// TestChangeLog: a handle that is behind by a few changes reads these; one that is further
// behind reads everything, and is right too.
func TestChangeLog(t *testing.T) {
	v := vaulttest.New(t)
	ctx := t.Context()
	behind, writer := New(v), New(v)
	node := func(i int) Node {
		return Node{Name: fmt.Sprintf("hive-%03d", i), SSHHost: "h", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
	}
	for i := range 20 {
		if err := writer.CreateNode(ctx, node(i)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the first read keeps nothing
		if s, err := behind.Snapshot(ctx); err != nil || s.Len() != 20 {
			t.Fatalf("%d nodes, %v", s.Len(), err)
		}
	}
	for _, changes := range []int{1, 50, maxChanged + 1} {
		before, err := behind.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		states := make([]State, 20)
		for i := range changes {
			status := []Status{StatusOnline, StatusOffline}[(changes+i/20)%2]
			states[i%20] = State{Node: node(i % 20).Name, Status: status}
			if i%20 == 19 || i == changes-1 {
				if _, err := writer.UpdateStates(ctx, states[:i%20+1]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := writer.RenameNode(ctx, node(19).Name, "moved"); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.RemoveNode(ctx, "moved"); err != nil {
			t.Fatal(err)
		}
		after, err := behind.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := New(v).Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for c := range fresh.Since(after) {
			t.Errorf("after %d changes %s is not as it should be: %+v, %+v", changes, c.Name, c.Before, c.After)
		}
		gone, same := 0, 0
		for c := range after.Since(before) {
			if c.After == nil {
				gone++
			}
		}
		for i := range min(before.Len(), after.Len()) {
			if before.nodes[i] == after.nodes[i] {
				same++
			}
		}
		if gone != 1 || changes == 1 && same != 18 {
			t.Errorf("after %d changes: %d are gone, %d were not read again", changes, gone, same)
		}
		if err := writer.CreateNode(ctx, node(19)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChangeLogIsBounded: the log of changes does not grow for ever.
func TestChangeLogIsBounded(t *testing.T) {
	v := vaulttest.New(t)
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		for range 20_000 {
			if _, err := tx.ExecContext(t.Context(), `INSERT INTO node_changes (node_name) VALUES ('hive-01')`); err != nil {
				return err
			}
		}
		first, last, err := selectChangeBounds(t.Context(), tx)
		if last != 20_000 || last-first > 9300 || last-first < 8000 {
			t.Errorf("it has %d to %d", first, last)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
