package registry

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/vault"
)

func wantReport(t testing.TB, r *Registry, set ImportSet, opts ImportOptions, want ImportReport) {
	t.Helper()
	got, err := r.Import(t.Context(), set, opts)
	check(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestImport(t *testing.T) {
	r := newRegistry(t)
	bad := bareNode("hive-04")
	bad.SSHUser = "-l"
	set := ImportSet{
		Nodes:    []Node{bareNode("hive-02"), testNode(), bareNode("hive-02"), bad, {Name: "\x1b[2J"}},
		Skipped:  []Problem{{"rowid 7", "node_name must not be null"}},
		Warnings: []Problem{{"hive-02", "status \"x\" is now unknown"}},
	}
	want := ImportReport{
		Added: []string{"hive-02", "hive-01"},
		Skipped: []Problem{
			{"rowid 7", "node_name must not be null"},
			{"hive-02", "comes twice"},
			{"hive-04", "ssh_user must not start with '-'"},
			{"node 5", "node_name must not contain control characters"},
		},
		Warnings: set.Warnings,
	}
	wantReport(t, r, set, ImportOptions{Source: "/tmp/old.db", DryRun: true}, want)
	wantNames(t, r)
	wantEvents(t, r, 0)

	wantReport(t, r, set, ImportOptions{Source: "/tmp/old.db"}, want)
	wantNode(t, r, testNode())
	wantNode(t, r, bareNode("hive-02"))
	wantNames(t, r, "hive-01", "hive-02")
	wantEvents(t, r, 0,
		event{"node.add", "hive-02", describeNode(bareNode("hive-02"))},
		event{"node.add", "hive-01", testNodeDetail},
		event{"node.import", "/tmp/old.db", "added 2; replaced 0; unchanged 0; skipped 4"},
	)
}

func TestImportExisting(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), testNode()))
	check(t, r.AddNode(t.Context(), bareNode("hive-02")))
	changed := testNode()
	changed.SSHPort = 22
	changed.Status, changed.LastConnected, changed.Backends, changed.Devices = StatusUnknown, time.Time{}, nil, nil
	set := ImportSet{Nodes: []Node{changed, bareNode("hive-02"), bareNode("hive-03")}}

	for _, dryRun := range []bool{true, false} {
		report, err := r.Import(t.Context(), set, ImportOptions{DryRun: dryRun})
		wantErr(t, err, ErrExists)
		if !strings.Contains(err.Error(), `"hive-01", "hive-02"`) {
			t.Errorf("the error does not name the nodes: %v", err)
		}
		if !cmp.Equal(report, ImportReport{}) {
			t.Errorf("a report beside an error: %+v", report)
		}
	}
	wantNames(t, r, "hive-01", "hive-02")

	want := ImportReport{Added: []string{"hive-03"}, Replaced: []string{"hive-01"}, Unchanged: []string{"hive-02"}}
	wantReport(t, r, set, ImportOptions{Replace: true, DryRun: true}, want)
	wantNode(t, r, testNode())
	wantReport(t, r, set, ImportOptions{Replace: true}, want)
	kept := testNode()
	kept.SSHPort = 22
	wantNode(t, r, kept)
	wantEvents(t, r, 2,
		event{"node.update", "hive-01", `ssh_port: 2222 -> 22`},
		event{"node.add", "hive-03", describeNode(bareNode("hive-03"))},
		event{"node.import", "", "added 1; replaced 1; unchanged 1; skipped 0"},
	)

	wantReport(t, r, set, ImportOptions{Replace: true}, ImportReport{Unchanged: []string{"hive-01", "hive-02", "hive-03"}})
	wantReport(t, r, ImportSet{}, ImportOptions{}, ImportReport{})
	wantEvents(t, r, 5)
}

// TestImportOfNothingNew writes nothing: no row, no audit row, no transaction.
func TestImportOfNothingNew(t *testing.T) {
	r := newRegistry(t)
	key, err := GeneratePrivateKey("ed25519", "k")
	check(t, err)
	set := ImportSet{Nodes: []Node{testNode(), bareNode("hive-02")}, Keys: map[string]*PrivateKey{"hive-02": key}}
	opts := ImportOptions{Source: "file", Replace: true}
	first, err := r.Import(t.Context(), set, opts)
	check(t, err)
	if len(first.Added) != 2 || len(first.Keys) != 1 {
		t.Fatalf("%+v", first)
	}
	before, err := r.Vault().Revision(t.Context())
	check(t, err)
	var again ImportReport
	done := make(chan error, 1)
	// Another writer has the lock: an import that took it would wait.
	check(t, r.Vault().Update(t.Context(), func(*vault.Tx) error {
		go func() {
			var err error
			again, err = r.Import(t.Context(), set, opts)
			done <- err
		}()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("the import waits for the other transaction")
		}
	}))
	if len(again.Unchanged) != 2 || len(again.Keys) != 1 {
		t.Errorf("%+v", again)
	}
	after, err := r.Vault().Revision(t.Context())
	check(t, err)
	if before != after {
		t.Error("something was written")
	}
}

// TestImportSkipExisting: an existing node keeps its values and its key, and an import of
// existing nodes alone writes nothing.
func TestImportSkipExisting(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), testNode()))
	other := testNode()
	other.SSHHost, other.ProxyJump = "elsewhere.example.org", ""
	beyond := bareNode("hive-02")
	beyond.ProxyJump = "hive-01"
	set := ImportSet{Nodes: []Node{other, beyond}}
	opts := ImportOptions{Source: "f", SkipExisting: true}
	wantReport(t, r, set, opts, ImportReport{Added: []string{"hive-02"}, Existing: []string{"hive-01"}})
	wantNode(t, r, testNode())
	wantEvents(t, r, 1,
		event{"node.add", "hive-02", describeNode(beyond)},
		event{"node.import", "f", "added 1; replaced 0; unchanged 0; skipped 0; existing 1"},
	)
	wantReport(t, r, set, opts, ImportReport{Existing: []string{"hive-01", "hive-02"}})
	wantEvents(t, r, 3)

	opts.Replace = true
	if _, err := r.Import(t.Context(), set, opts); !errors.Is(err, ErrInvalid) {
		t.Errorf("Replace and SkipExisting: %v", err)
	}
}
