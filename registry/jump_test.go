package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// chain adds n0, and as many nodes as hops, n1 and so on, each of which jumps through the
// one before.
func chain(t testing.TB, r *Registry, hops int) {
	t.Helper()
	for i := range hops + 1 {
		n := bareNode(fmt.Sprintf("n%d", i))
		if i > 0 {
			n.ProxyJump = fmt.Sprintf("n%d", i-1)
		}
		check(t, r.CreateNode(t.Context(), n))
	}
}

// wantJumpError: the field is to blame, and nothing was changed.
func wantJumpError(t testing.TB, r *Registry, before map[string]string, err error, texts ...string) {
	t.Helper()
	wantErr(t, err, ErrInvalid)
	if field, ok := errors.AsType[*FieldError](err); !ok || field.Field != "proxy_jump" {
		t.Errorf("%v names no proxy_jump", err)
	}
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q in it", err, text)
		}
	}
	after, err := r.Jumps(t.Context())
	check(t, err)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("changed (-before +after):\n%s", diff)
	}
	wantContent(t, r)
}

func TestJumps(t *testing.T) {
	r := newRegistry(t)
	ctx := t.Context()
	chain(t, r, MaxJumps)
	check(t, r.CreateNode(ctx, bareNode("alone")))
	before, err := r.Jumps(ctx)
	check(t, err)
	if len(before) != MaxJumps || before["n8"] != "n7" {
		t.Fatalf("%v", before)
	}
	jumping := func(name, jump string) Node {
		n := bareNode(name)
		n.ProxyJump = jump
		return n
	}
	set := func(jump string) func(*Node) error {
		return func(n *Node) error {
			n.ProxyJump = jump
			return nil
		}
	}
	swap := func(n *Node) error { // n7 and alone through each other
		n.ProxyJump = map[string]string{"n8": "alone", "alone": "n8"}[n.Name]
		return nil
	}
	_, withKey := r.CreateNodeWithKey(ctx, jumping("new", "nobody"), KeyChoice{Generate: true})
	for _, tt := range []struct {
		name  string
		err   error
		texts []string
	}{
		{"missing, created", r.CreateNode(ctx, jumping("new", "nobody")), []string{`create node "new": proxy_jump must name`}},
		{"missing, with a key", withKey, []string{"must name"}},
		{"missing, added", r.AddNode(ctx, jumping("new", "nobody")), []string{`add node "new": proxy_jump must name`}},
		{"missing, replaced", r.AddNode(ctx, jumping("n3", "nobody")), []string{"must name"}},
		{"missing, updated", r.UpdateNode(ctx, "n0", set("nobody")), []string{`update node "n0": proxy_jump must name`}},
		{"itself", r.UpdateNode(ctx, "n0", set("n0")), []string{"lead back"}},
		{"circle, updated", r.UpdateNode(ctx, "n0", set("n3")), []string{`node "n0"`, "lead back"}},
		{"circle, replaced", r.AddNode(ctx, jumping("n0", "n1")), []string{"lead back"}},
		{"circle of two changes", r.UpdateNodes(ctx, []string{"n8", "alone"}, swap), []string{"lead back"}},
		{"nine hops", r.CreateNode(ctx, jumping("new", "n8")), []string{"at most 8"}},
		{"nine hops behind it", r.UpdateNode(ctx, "n0", set("alone")), []string{`node "n8"`, "at most 8"}},
		{"an option", r.UpdateNode(ctx, "n0", set("-J")), nil},
	} {
		t.Run(tt.name, func(t *testing.T) { wantJumpError(t, r, before, tt.err, tt.texts...) })
	}
	if keys, err := r.ListSSHKeys(ctx); err != nil || len(keys) != 0 {
		t.Errorf("%d keys, %v", len(keys), err)
	}

	// A circle that is opened and closed elsewhere in one transaction is none.
	check(t, r.UpdateNodes(ctx, []string{"n0", "n1"}, func(n *Node) error {
		n.ProxyJump = map[string]string{"n0": "n1", "n1": ""}[n.Name]
		return nil
	}))
	wantContent(t, r)
	// The end of a way may go to another.
	check(t, r.UpdateNode(ctx, "n8", set("alone")))
	check(t, r.UpdateNode(ctx, "n8", set("")))
}

// TestJumpsThatAreTooLongAlready: rows that another program wrote are no other node's
// error, and can be put right.
func TestJumpsThatAreTooLongAlready(t *testing.T) {
	r := newRegistry(t)
	chain(t, r, MaxJumps)
	check(t, r.CreateNode(t.Context(), bareNode("alone")))
	execSQL(t, r, `INSERT INTO node_details (node_name, proxy_jump) VALUES ('n0', 'alone')`)
	other := bareNode("other")
	other.ProxyJump = "alone"
	check(t, r.CreateNode(t.Context(), other))
	check(t, r.UpdateNode(t.Context(), "n8", func(n *Node) error {
		n.ProxyJump = "n0"
		return nil
	}))
}

func TestRemoveJumpedThrough(t *testing.T) {
	r := newRegistry(t)
	chain(t, r, 1)
	for i := range 12 {
		n := bareNode(fmt.Sprintf("m%02d", i))
		n.ProxyJump = "n0"
		check(t, r.CreateNode(t.Context(), n))
	}
	removed, err := r.RemoveNode(t.Context(), "n0")
	wantErr(t, err, ErrInUse)
	if removed || err == nil || !strings.Contains(err.Error(), "m00, m01, ") || !strings.Contains(err.Error(), "m09 and 3 more jump through it") {
		t.Errorf("%t, %v", removed, err)
	}
	if get(t, r, "n0").Name != "n0" {
		t.Error("the node is gone")
	}
	// A row that cannot be read is no way round.
	execSQL(t, r, `UPDATE beehives SET ssh_port = 'x' WHERE node_name = 'n0'`)
	_, err = r.RemoveNode(t.Context(), "n0")
	wantErr(t, err, ErrInUse)
	execSQL(t, r, `UPDATE beehives SET ssh_port = 22 WHERE node_name = 'n0'`)

	for _, name := range []string{"n1", "m00"} {
		_, err := r.RemoveNode(t.Context(), name)
		check(t, err)
	}
	_, err = r.RemoveNode(t.Context(), "n0")
	wantErr(t, err, ErrInUse)
	execSQL(t, r, `DELETE FROM beehives WHERE node_name LIKE 'm%'`)
	_, err = r.RemoveNode(t.Context(), "n0")
	check(t, err)
	wantContent(t, r)
}

// TestJumpReference: whatever a program forgets, no jump through a missing node is
// committed.
func TestJumpReference(t *testing.T) {
	r := newRegistry(t)
	chain(t, r, 1)
	for _, query := range []string{
		`DELETE FROM beehives WHERE node_name = 'n0'`,
		`UPDATE node_details SET proxy_jump = 'nobody'`,
	} {
		err := r.Vault().Update(t.Context(), func(tx *vault.Tx) error {
			if _, err := tx.ExecContext(t.Context(), query); err != nil {
				return err
			}
			return tx.Audit(t.Context(), vault.Event{Action: vault.Action("test")})
		})
		if err == nil {
			t.Errorf("%s: committed", query)
		}
	}
	wantContent(t, r)
}

func TestImportJumps(t *testing.T) {
	jumping := func(name, jump string) Node {
		n := bareNode(name)
		n.ProxyJump = jump
		return n
	}
	const missing, back, many = "proxy_jump " + ruleJumpMissing, "proxy_jump " + ruleJumpBack, "proxy_jump must lead through at most 8 nodes"
	var long []Node
	for i := range 11 {
		long = append(long, jumping(fmt.Sprintf("l%02d", i), fmt.Sprintf("l%02d", i+1)))
	}
	long[10].ProxyJump = ""
	longNames := []string{"l02", "l03", "l04", "l05", "l06", "l07", "l08", "l09", "l10"}
	for _, tt := range []struct {
		name    string
		stored  []Node
		nodes   []Node
		replace bool
		want    ImportReport
		jumps   map[string]string
	}{
		{
			name:  "later in the file",
			nodes: []Node{jumping("a", "c"), jumping("c", "b"), bareNode("b")},
			want:  ImportReport{Added: []string{"a", "c", "b"}},
			jumps: map[string]string{"a": "c", "c": "b"},
		}, {
			name:   "in the registry",
			stored: []Node{bareNode("b")},
			nodes:  []Node{jumping("a", "b")},
			want:   ImportReport{Added: []string{"a"}},
			jumps:  map[string]string{"a": "b"},
		}, {
			name:  "nowhere, and what it takes along",
			nodes: []Node{jumping("a", "b"), jumping("b", "nobody"), bareNode("c"), jumping("d", "c")},
			want:  ImportReport{Added: []string{"c", "d"}, Skipped: []Problem{{"b", missing}, {"a", missing}}},
			jumps: map[string]string{"d": "c"},
		}, {
			name:  "through a node that is no node",
			nodes: []Node{jumping("a", "b"), {Name: "b"}},
			want:  ImportReport{Skipped: []Problem{{"b", "ssh_host must not be empty"}, {"a", missing}}},
			jumps: map[string]string{},
		}, {
			name:  "circle",
			nodes: []Node{jumping("a", "b"), jumping("b", "a"), bareNode("c")},
			want:  ImportReport{Added: []string{"c"}, Skipped: []Problem{{"a", back}, {"b", back}}},
			jumps: map[string]string{},
		}, {
			name:  "too long",
			nodes: long,
			want:  ImportReport{Added: longNames, Skipped: []Problem{{"l00", many}, {"l01", many}}},
			jumps: map[string]string{"l02": "l03", "l03": "l04", "l04": "l05", "l05": "l06", "l06": "l07", "l07": "l08", "l08": "l09", "l09": "l10"},
		}, {
			name:    "circle with what is stored",
			stored:  []Node{bareNode("b"), jumping("a", "b")},
			nodes:   []Node{jumping("b", "a"), bareNode("c")},
			replace: true,
			want:    ImportReport{Added: []string{"c"}, Skipped: []Problem{{"b", back}}},
			jumps:   map[string]string{"a": "b"},
		}, {
			name:    "a stored jump is replaced, and one that is skipped stays",
			stored:  []Node{bareNode("b"), jumping("a", "b"), jumping("c", "b")},
			nodes:   []Node{bareNode("a"), jumping("c", "nobody"), jumping("d", "c"), jumping("b", "a")},
			replace: true,
			want:    ImportReport{Added: []string{"d"}, Replaced: []string{"a", "b"}, Skipped: []Problem{{"c", missing}}},
			jumps:   map[string]string{"c": "b", "d": "c", "b": "a"},
		}, {
			name:    "unchanged",
			stored:  []Node{bareNode("b"), jumping("a", "b")},
			nodes:   []Node{jumping("a", "b"), bareNode("b")},
			replace: true,
			want:    ImportReport{Unchanged: []string{"a", "b"}},
			jumps:   map[string]string{"a": "b"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry(t)
			for _, n := range tt.stored {
				check(t, r.CreateNode(t.Context(), n))
			}
			for _, dry := range []bool{true, false} {
				wantReport(t, r, ImportSet{Nodes: tt.nodes}, ImportOptions{Replace: tt.replace, DryRun: dry}, tt.want)
			}
			got, err := r.Jumps(t.Context())
			check(t, err)
			if diff := cmp.Diff(tt.jumps, got); diff != "" {
				t.Errorf("jumps (-want +got):\n%s", diff)
			}
			wantContent(t, r)
		})
	}

	// A node that is not in the file would be reached through too many.
	r := newRegistry(t)
	chain(t, r, MaxJumps)
	before, err := r.Jumps(t.Context())
	check(t, err)
	for _, dry := range []bool{true, false} {
		_, err = r.Import(t.Context(), ImportSet{Nodes: []Node{jumping("n0", "new"), bareNode("new")}}, ImportOptions{Replace: true, DryRun: dry})
		wantJumpError(t, r, before, err, `node "n8"`, "at most 8")
	}
}

// TestImportOfTwelveFields: a source that cannot have them takes no labels away.
func TestImportOfTwelveFields(t *testing.T) {
	r := newRegistry(t)
	check(t, r.CreateNode(t.Context(), bareNode("hive-02")))
	check(t, r.CreateNode(t.Context(), richNode()))
	changed := testNode()
	changed.SSHPort = 22
	set := ImportSet{Nodes: []Node{changed}, TwelveFields: true}
	wantReport(t, r, set, ImportOptions{Replace: true}, ImportReport{Replaced: []string{"hive-01"}})
	want := richNode()
	want.SSHPort = 22
	wantListed(t, r, want)
	wantReport(t, r, set, ImportOptions{Replace: true}, ImportReport{Unchanged: []string{"hive-01"}})

	set.TwelveFields = false
	wantReport(t, r, set, ImportOptions{Replace: true}, ImportReport{Replaced: []string{"hive-01"}})
	wantListed(t, r, changed)
	wantRows(t, r, 0, 0)
}

// TestInsertNodeInAnyOrder: a restore inserts nodes by name.
func TestInsertNodeInAnyOrder(t *testing.T) {
	r := newRegistry(t)
	update(t, r, func(ctx context.Context, tx *vault.Tx) error {
		return errors.Join(InsertNodes(ctx, tx, richNode()), InsertNodes(ctx, tx, bareNode("hive-02")))
	})
	wantListed(t, r, richNode())
}
