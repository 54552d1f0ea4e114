package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// richNode is testNode with what stands beside its row. It jumps through hive-02.
func richNode() Node {
	n := testNode()
	n.ProxyJump = "hive-02"
	n.Note = "behind the bastion; Ä, é, 世"
	n.Labels = map[string]string{"rack": "3", "role": "training", "spare": ""}
	return n
}

const richDetail = `; proxy_jump: "hive-02"; note: "behind the bastion; Ä, é, 世"; labels: "rack=3,role=training,spare="`

// wantContent compares the stored digest with the rows.
func wantContent(t testing.TB, r *Registry) {
	t.Helper()
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error { return tx.VerifyContent(t.Context()) }))
}

// wantListed compares a node of the list, which is read by other statements than one node.
func wantListed(t testing.TB, r *Registry, want Node) {
	t.Helper()
	wantNode(t, r, want)
	var list []Node
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		for n, err := range EachNode(t.Context(), tx) {
			if err != nil {
				return err
			}
			list = append(list, n)
		}
		return nil
	}))
	at := slices.IndexFunc(list, func(n Node) bool { return n.Name == want.Name })
	if at < 0 {
		t.Fatalf("node %s is not listed", want.Name)
	}
	if diff := cmp.Diff(want, list[at]); diff != "" {
		t.Errorf("listed node %s (-want +got):\n%s", want.Name, diff)
	}
}

// wantRows compares how many rows stand beside nodes: only where there is something to say.
func wantRows(t testing.TB, r *Registry, details, labels int) {
	t.Helper()
	var gotDetails, gotLabels int
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM node_details), (SELECT count(*) FROM node_labels)`).Scan(&gotDetails, &gotLabels)
	}))
	if gotDetails != details || gotLabels != labels {
		t.Errorf("%d rows of details and %d labels, want %d and %d", gotDetails, gotLabels, details, labels)
	}
}

func TestNodeDetails(t *testing.T) {
	r := newRegistry(t)
	ctx := t.Context()
	check(t, r.CreateNode(ctx, bareNode("hive-02")))
	check(t, r.CreateNode(ctx, bareNode("hive-00")))
	wantRows(t, r, 0, 0)
	check(t, r.CreateNode(ctx, richNode()))
	check(t, r.AddNode(ctx, bareNode("hive-03")))
	wantListed(t, r, richNode())
	wantListed(t, r, bareNode("hive-00"))
	wantListed(t, r, bareNode("hive-03"))
	wantEvents(t, r, 2, event{"node.add", "hive-01", testNodeDetail + richDetail}, event{"node.add", "hive-03", describeNode(bareNode("hive-03"))})
	wantRows(t, r, 1, 3)
	wantContent(t, r)

	// The same again is no change.
	check(t, r.AddNode(ctx, richNode()))
	wantEvents(t, r, 4)

	want := richNode()
	want.Note, want.Labels = "", map[string]string{"rack": "4", "spare": "", "zone": "a"}
	check(t, r.UpdateNode(ctx, "hive-01", func(n *Node) error {
		n.Note = ""
		n.Labels["rack"], n.Labels["zone"] = "4", "a"
		delete(n.Labels, "role")
		return nil
	}))
	wantListed(t, r, want)
	wantEvents(t, r, 4, event{"node.update", "hive-01",
		`note: "behind the bastion; Ä, é, 世" -> null; labels: "rack=3,role=training,spare=" -> "rack=4,spare=,zone=a"`})
	wantContent(t, r)

	// State and capabilities leave the rest alone.
	want.Status = StatusError
	check(t, r.UpdateStatus(ctx, "hive-01", StatusError))
	want.Backends = []string{"rocm"}
	want.Devices = nil
	check(t, r.UpdateCapabilities(ctx, "hive-01", []string{"rocm"}, nil))
	wantListed(t, r, want)

	// A new name is carried over, to those who jump through the node too.
	check(t, r.RenameNode(ctx, "hive-02", "bastion"))
	want.ProxyJump = "bastion"
	wantListed(t, r, want)
	check(t, r.RenameNode(ctx, "hive-01", "hive-11"))
	want.Name = "hive-11"
	wantListed(t, r, want)
	wantRows(t, r, 1, 3)
	wantContent(t, r)

	// AddNode replaces the configuration, all of it.
	bare := bareNode("hive-11").withState(want)
	check(t, r.AddNode(ctx, bareNode("hive-11")))
	wantListed(t, r, bare)
	wantRows(t, r, 0, 0)
	wantContent(t, r)

	check(t, r.UpdateNode(ctx, "hive-11", func(n *Node) error {
		*n = want
		return nil
	}))
	wantListed(t, r, want)
	removed, err := r.RemoveNode(ctx, "hive-11")
	check(t, err)
	if !removed {
		t.Error("not removed")
	}
	wantRows(t, r, 0, 0)
	wantContent(t, r)
}

// TestNodeSharesNoLabels: neither the cache nor another caller sees what a caller does to
// a node.
func TestNodeSharesNoLabels(t *testing.T) {
	r := newRegistry(t)
	want := bareNode("hive-01")
	want.Labels = map[string]string{"rack": "3"}
	given := want.normalized()
	check(t, r.CreateNode(t.Context(), given))
	given.Labels["rack"] = "changed"
	for range 3 { // read, kept, from the cache
		n := get(t, r, "hive-01")
		if diff := cmp.Diff(want, n); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		n.Labels["rack"] = "changed"
		list, err := r.ListNodes(t.Context())
		check(t, err)
		if diff := cmp.Diff(want, list[0]); diff != "" {
			t.Errorf("listed (-want +got):\n%s", diff)
		}
		list[0].Labels["rack"] = "changed"
	}
	givenUp := errors.New("given up")
	wantErr(t, r.UpdateNode(t.Context(), "hive-01", func(n *Node) error {
		n.Labels["rack"] = "changed"
		return givenUp
	}), givenUp)
	wantNode(t, r, want)
}

// TestChangesOfDetails: Watch compares what stands beside the row too.
func TestChangesOfDetails(t *testing.T) {
	for name, change := range map[string]func(*Node){
		"jump":  func(n *Node) { n.ProxyJump = "hive-03" },
		"note":  func(n *Node) { n.Note = "" },
		"value": func(n *Node) { n.Labels["rack"] = "4" },
		"label": func(n *Node) { delete(n.Labels, "spare") },
	} {
		rich, after := richNode(), richNode()
		change(&after)
		count := 0
		for range (Snapshot{[]*Node{&after}}).Since(Snapshot{[]*Node{&rich}}) {
			count++
		}
		if count != 1 {
			t.Errorf("%s: %d changes", name, count)
		}
	}
}

func TestBadDetails(t *testing.T) {
	for name, query := range map[string]string{
		"label's key":     `INSERT INTO node_labels VALUES ('hive-01', 'a,b', 'c')`,
		"label's value":   `INSERT INTO node_labels VALUES ('hive-01', 'a', 'c=d')`,
		"empty key":       `INSERT INTO node_labels VALUES ('hive-01', '', 'c')`,
		"blob for a key":  `INSERT INTO node_labels VALUES ('hive-01', x'61', 'c')`,
		"blob for value":  `INSERT INTO node_labels VALUES ('hive-01', 'a', x'61')`,
		"blob for a note": `INSERT INTO node_details VALUES ('hive-01', NULL, x'61')`,
		"note":            `INSERT INTO node_details VALUES ('hive-01', NULL, '-a' || char(10))`,
		"jump to itself":  `INSERT INTO node_details VALUES ('hive-01', 'hive-01', NULL)`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t)
			check(t, r.CreateNode(t.Context(), testNode()))
			check(t, r.CreateNode(t.Context(), bareNode("hive-02")))
			execSQL(t, r, query)
			_, err := r.GetNode(t.Context(), "hive-01")
			wantErr(t, err, ErrBadRow)
			if err == nil || !strings.Contains(err.Error(), "hive-01") {
				t.Errorf("the error does not name the row: %v", err)
			}
			_, err = r.ListNodes(t.Context())
			wantErr(t, err, ErrBadRow)
			wantNode(t, r, bareNode("hive-02"))
			if removed, err := r.RemoveNode(t.Context(), "hive-01"); err != nil || !removed {
				t.Errorf("remove: %t, %v", removed, err)
			}
			wantRows(t, r, 0, 0)
		})
	}
}

// TestOrphans: a row beside a node that does not exist is an error, wherever it sorts.
func TestOrphans(t *testing.T) {
	for _, query := range []string{
		`INSERT INTO node_labels VALUES ('%s', 'a', 'b')`,
		`INSERT INTO node_details VALUES ('%s', NULL, 'note')`,
	} {
		for _, orphan := range []string{"a", "hive-015", "z"} {
			r := newRegistry(t)
			check(t, r.CreateNode(t.Context(), testNode()))
			check(t, r.CreateNode(t.Context(), bareNode("hive-02")))
			undo := errors.New("undo")
			err := r.Vault().Update(t.Context(), func(tx *vault.Tx) error {
				// The reference is compared at commit, which does not come.
				if _, err := tx.ExecContext(t.Context(), `PRAGMA defer_foreign_keys = ON`); err != nil {
					return err
				}
				if _, err := tx.ExecContext(t.Context(), fmt.Sprintf(query, orphan)); err != nil {
					return err
				}
				for _, err := range EachNode(t.Context(), tx) {
					if err != nil {
						return errors.Join(undo, err)
					}
				}
				return undo
			})
			wantErr(t, err, undo)
			wantErr(t, err, ErrBadRow)
			if !strings.Contains(err.Error(), `"`+orphan+`"`) {
				t.Errorf("the error does not name the row: %v", err)
			}
		}
	}
}

// TestCheckedReading: rows beside the nodes are counted by the statements that read them.
func TestCheckedReading(t *testing.T) {
	r := newRegistry(t)
	check(t, r.CreateNode(t.Context(), bareNode("hive-02")))
	check(t, r.CreateNode(t.Context(), richNode()))
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		if err := tx.BeginCheck(t.Context()); err != nil {
			return err
		}
		for _, err := range EachNode(t.Context(), tx) {
			if err != nil {
				return err
			}
		}
		return errors.Join(readOthers(t.Context(), tx), tx.EndCheck())
	}))
}

// readOthers reads the other tables that the digest covers: those that are empty here need
// no reading, and a new vault has one signer.
func readOthers(ctx context.Context, tx *vault.Tx) error {
	_, err := tx.Signers(ctx)
	return err
}
