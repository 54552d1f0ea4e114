package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

const testNodeDetail = `ssh_host: "hive-01.example.org"; ssh_port: 2222; ssh_user: "ops"; ssh_key_path: "/home/ops/.ssh/id_ed25519"; ` +
	`git_repo_url: "https://git.example.org/fleet/hive.git"; git_branch: "main"; install_path: "~/hive"; ` +
	`backends: ["cpu","cuda"]; devices: {"cpu":1,"cuda":2}`

func TestAddNode(t *testing.T) {
	r := newRegistry(t)
	n := testNode()
	n.Backends = []string{"cuda", "cpu", "cuda"}
	n.LastConnected = n.LastConnected.Add(time.Millisecond).In(time.FixedZone("", 7200))
	check(t, r.AddNode(t.Context(), n))
	if len(n.Backends) != 3 {
		t.Error("AddNode changed what it was given")
	}
	wantNode(t, r, testNode())
	wantEvents(t, r, 0, event{"node.add", "hive-01", testNodeDetail})

	// The same node again is not a change.
	check(t, r.AddNode(t.Context(), n))
	wantEvents(t, r, 1)

	// New configuration and unknown state: the stored state stays.
	want := testNode()
	want.SSHPort, want.GitBranch, want.SSHKeyPath = 22, "dev", ""
	again := want
	again.Status, again.LastConnected, again.Backends, again.Devices = "", time.Time{}, nil, nil
	check(t, r.AddNode(t.Context(), again))
	wantNode(t, r, want)
	wantEvents(t, r, 1, event{"node.update", "hive-01",
		`ssh_port: 2222 -> 22; ssh_key_path: "/home/ops/.ssh/id_ed25519" -> null; git_branch: "main" -> "dev"`})

	// Known state replaces the stored state. Empty is not unknown.
	want.Status, want.Backends, want.Devices = StatusError, []string{}, map[string]uint32{}
	want.LastConnected = want.LastConnected.Add(time.Hour)
	check(t, r.AddNode(t.Context(), want))
	wantNode(t, r, want)
	wantEvents(t, r, 2, event{"node.update", "hive-01", `backends: ["cpu","cuda"] -> []; devices: {"cpu":1,"cuda":2} -> {}`})

	// A change of state only is not audited.
	want.Status = StatusOffline
	check(t, r.AddNode(t.Context(), want))
	wantNode(t, r, want)
	wantEvents(t, r, 3)

	bad := testNode()
	bad.SSHUser = "-l"
	wantErr(t, r.AddNode(t.Context(), bad), ErrInvalid)
	wantNode(t, r, want)
}

func TestAddNodeKeepsKeys(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), bareNode("hive-01")))
	key, private := newSSHKey(t, "hive-01")
	update(t, r, func(ctx context.Context, tx *vault.Tx) error {
		return errors.Join(InsertSSHKey(ctx, tx, key, private), InsertHostKeys(ctx, tx, newHostKey(t, "hive-01")))
	})
	check(t, r.AddNode(t.Context(), testNode()))
	wantTotals(t, r, Totals{Nodes: 1, SSHKeys: 1, HostKeys: 1})
}

func TestCreateNode(t *testing.T) {
	r := newRegistry(t)
	n := bareNode("hive-01")
	n.Status = ""
	check(t, r.CreateNode(t.Context(), n))
	wantNode(t, r, bareNode("hive-01"))
	wantErr(t, r.CreateNode(t.Context(), testNode()), ErrExists)
	wantNode(t, r, bareNode("hive-01"))
	wantErr(t, r.CreateNode(t.Context(), Node{Name: "hive-02"}), ErrInvalid)
	wantNames(t, r, "hive-01")
	if got := events(t, r); len(got) != 1 {
		t.Errorf("%d audit rows, want 1", len(got))
	}
	// Names differ by case.
	check(t, r.CreateNode(t.Context(), bareNode("HIVE-01")))
}

func TestGetNode(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), testNode()))
	for _, name := range []string{"hive-02", "HIVE-01", "", "hive-0%", "\x00"} {
		_, err := r.GetNode(t.Context(), name)
		wantErr(t, err, ErrNotFound)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.GetNode(ctx, "hive-01")
	wantErr(t, err, context.Canceled)
}

func TestListNodes(t *testing.T) {
	r := newRegistry(t)
	wantNames(t, r)
	for _, name := range []string{"b", "a.b", "B", "a", "a-b", "0"} {
		check(t, r.AddNode(t.Context(), bareNode(name)))
	}
	wantNames(t, r, "0", "B", "a", "a-b", "a.b", "b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.ListNodes(ctx)
	wantErr(t, err, context.Canceled)
}

func TestBadRow(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), bareNode("hive-01")))
	check(t, r.AddNode(t.Context(), bareNode("hive-02")))
	execSQL(t, r, `UPDATE beehives SET ssh_port = 'many' WHERE node_name = 'hive-02'`)

	_, err := r.ListNodes(t.Context())
	wantErr(t, err, ErrBadRow)
	if !strings.Contains(err.Error(), "hive-02") || !strings.Contains(err.Error(), "ssh_port") {
		t.Errorf("the error does not name row and field: %v", err)
	}
	_, err = r.GetNode(t.Context(), "hive-02")
	wantErr(t, err, ErrBadRow)
	wantNode(t, r, bareNode("hive-01"))
	wantErr(t, r.UpdateStatus(t.Context(), "hive-02", StatusOnline), ErrBadRow)

	removed, err := r.RemoveNode(t.Context(), "hive-02")
	if err != nil || !removed {
		t.Fatalf("RemoveNode = %v, %v", removed, err)
	}
	wantNames(t, r, "hive-01")
	wantEvents(t, r, 2, event{"node.remove", "hive-02", "host keys: 0"})
}

func TestUpdateNode(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), testNode()))
	check(t, r.UpdateNode(t.Context(), "hive-01", func(n *Node) error {
		if diff := cmp.Diff(testNode(), *n); diff != "" {
			t.Errorf("given (-want +got):\n%s", diff)
		}
		n.SSHUser = "deploy"
		n.Backends = append(n.Backends, "cpu", "metal")
		n.Devices["metal"] = 1
		return nil
	}))
	want := testNode()
	want.SSHUser = "deploy"
	want.Backends = []string{"cpu", "cuda", "metal"}
	want.Devices = map[string]uint32{"cpu": 1, "cuda": 2, "metal": 1}
	wantNode(t, r, want)
	wantEvents(t, r, 1, event{"node.update", "hive-01", `ssh_user: "ops" -> "deploy"; backends: ["cpu","cuda"] -> ["cpu","cuda","metal"]; ` +
		`devices: {"cpu":1,"cuda":2} -> {"cpu":1,"cuda":2,"metal":1}`})

	// Only UpdateNode and the functions for state can make state unknown.
	want.Status, want.LastConnected, want.Backends, want.Devices = StatusUnknown, time.Time{}, nil, nil
	check(t, r.UpdateNode(t.Context(), "hive-01", func(n *Node) error {
		n.Status, n.LastConnected, n.Backends, n.Devices = "", time.Time{}, nil, nil
		return nil
	}))
	wantNode(t, r, want)

	before := events(t, r)
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		change func(n *Node) error
		want   error
	}{
		{"hive-01", func(n *Node) error { return nil }, nil},
		{"hive-01", func(n *Node) error { n.SSHPort = 7; return broken }, broken},
		{"hive-01", func(n *Node) error { n.SSHPort = 0; return nil }, ErrInvalid},
		{"hive-01", func(n *Node) error { n.Name = "hive-02"; return nil }, ErrInvalid},
		{"hive-02", func(n *Node) error { t.Error("called"); return nil }, ErrNotFound},
	} {
		if err := r.UpdateNode(t.Context(), tt.name, tt.change); !errors.Is(err, tt.want) {
			t.Errorf("got %v, want %v", err, tt.want)
		}
	}
	wantNode(t, r, want)
	wantEvents(t, r, len(before))
}

func TestRenameNode(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), testNode()))
	check(t, r.AddNode(t.Context(), bareNode("hive-02")))
	key, private := newSSHKey(t, "hive-01")
	hostKey := newHostKey(t, "hive-01")
	update(t, r, func(ctx context.Context, tx *vault.Tx) error {
		return errors.Join(InsertSSHKey(ctx, tx, key, private), InsertHostKeys(ctx, tx, hostKey))
	})

	check(t, r.RenameNode(t.Context(), "hive-01", "hive-03"))
	want := testNode()
	want.Name = "hive-03"
	wantNode(t, r, want)
	wantNames(t, r, "hive-02", "hive-03")
	wantEvents(t, r, 2, event{"node.rename", "hive-01", `node_name: "hive-01" -> "hive-03"`})
	key.Nodes, hostKey.Node = []string{"hive-03"}, "hive-03"
	wantKeys(t, r, []SSHKey{key}, []HostKey{hostKey})

	wantErr(t, r.RenameNode(t.Context(), "hive-01", "hive-04"), ErrNotFound)
	wantErr(t, r.RenameNode(t.Context(), "hive-01", "hive-01"), ErrNotFound)
	wantErr(t, r.RenameNode(t.Context(), "hive-03", "hive-02"), ErrExists)
	wantErr(t, r.RenameNode(t.Context(), "hive-03", "-x"), ErrInvalid)
	check(t, r.RenameNode(t.Context(), "hive-03", "hive-03"))
	check(t, r.RenameNode(t.Context(), "hive-03", "HIVE-03"))
	wantEvents(t, r, 3, event{"node.rename", "hive-03", `node_name: "hive-03" -> "HIVE-03"`})
}

func TestRemoveNode(t *testing.T) {
	r := newRegistry(t)
	for _, name := range []string{"hive-01", "hive-02", "hive-03"} {
		check(t, r.AddNode(t.Context(), bareNode(name)))
	}
	shared, private := newSSHKey(t, "hive-01", "hive-02")
	spare, sparePrivate := newSSHKey(t)
	update(t, r, func(ctx context.Context, tx *vault.Tx) error {
		return errors.Join(
			InsertSSHKey(ctx, tx, shared, private),
			InsertSSHKey(ctx, tx, spare, sparePrivate),
			InsertHostKeys(ctx, tx, newHostKey(t, "hive-01")),
			InsertHostKeys(ctx, tx, newHostKey(t, "hive-01")),
			InsertHostKeys(ctx, tx, newHostKey(t, "hive-02")),
		)
	})
	remove := func(name string, want bool) {
		t.Helper()
		if got, err := r.RemoveNode(t.Context(), name); err != nil || got != want {
			t.Errorf("RemoveNode(%q) = %v, %v", name, got, err)
		}
	}
	wantTotals(t, r, Totals{Nodes: 3, SSHKeys: 2, HostKeys: 3})
	remove("hive-01", true)
	wantTotals(t, r, Totals{Nodes: 2, SSHKeys: 2, HostKeys: 1})
	remove("hive-01", false)
	remove("hive-03", true)
	wantTotals(t, r, Totals{Nodes: 1, SSHKeys: 2, HostKeys: 1})
	remove("hive-02", true)
	wantTotals(t, r, Totals{SSHKeys: 1})

	bare := func(name string) string { return describeNode(bareNode(name)) }
	wantEvents(t, r, 3,
		event{"node.remove", "hive-01", bare("hive-01") + "; host keys: 2; ssh key: " + shared.Fingerprint},
		event{"node.remove", "hive-03", bare("hive-03") + "; host keys: 0"},
		event{"node.remove", "hive-02", bare("hive-02") + "; host keys: 1; ssh key: " + shared.Fingerprint},
		event{"ssh-key.remove", shared.Fingerprint, `no node uses it after the removal of "hive-02"`},
	)
}

func TestUpdateStatus(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), testNode()))
	want := testNode()
	for _, status := range []Status{StatusOffline, StatusOffline, StatusError, StatusUnknown, StatusOnline} {
		check(t, r.UpdateStatus(t.Context(), "hive-01", status))
		want.Status = status
		wantNode(t, r, want)
	}
	wantErr(t, r.UpdateStatus(t.Context(), "hive-02", StatusOnline), ErrNotFound)
	wantErr(t, r.UpdateStatus(t.Context(), "hive-01", "reachable"), ErrInvalid)
	wantErr(t, r.UpdateStatus(t.Context(), "hive-01", ""), ErrInvalid)
	wantNode(t, r, want)
	wantEvents(t, r, 1)
}

func TestUpdateLastConnected(t *testing.T) {
	cfg := vaulttest.Config(t)
	now := time.Date(2026, 5, 6, 7, 8, 9, 999e6, time.UTC)
	cfg.Now = func() time.Time { return now }
	r, err := Open(t.Context(), cfg)
	check(t, err)
	defer r.Close()
	check(t, r.AddNode(t.Context(), testNode()))

	want := testNode()
	for _, at := range []time.Time{now, now, now.Add(time.Second), now} { // a clock may go back
		now = at
		check(t, r.UpdateLastConnected(t.Context(), "hive-01"))
		want.LastConnected = at.Truncate(time.Second)
		wantNode(t, r, want)
	}
	wantErr(t, r.UpdateLastConnected(t.Context(), "hive-02"), ErrNotFound)
	wantEvents(t, r, 1)
}

func TestUpdateCapabilities(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), testNode()))
	want := testNode()
	want.Backends, want.Devices = []string{"cpu", "metal"}, map[string]uint32{"metal": 1, "other": 0}
	for range 2 {
		check(t, r.UpdateCapabilities(t.Context(), "hive-01", []string{"metal", "cpu", "metal"}, map[string]uint32{"metal": 1, "other": 0}))
		wantNode(t, r, want)
	}
	want.Backends, want.Devices = []string{}, nil
	check(t, r.UpdateCapabilities(t.Context(), "hive-01", []string{}, nil))
	wantNode(t, r, want)
	wantErr(t, r.UpdateCapabilities(t.Context(), "hive-02", nil, nil), ErrNotFound)
	wantErr(t, r.UpdateCapabilities(t.Context(), "hive-01", []string{"CPU"}, nil), ErrInvalid)
	wantErr(t, r.UpdateCapabilities(t.Context(), "hive-01", nil, map[string]uint32{"": 1}), ErrInvalid)
	wantNode(t, r, want)
	wantEvents(t, r, 1,
		event{"node.capabilities", "hive-01", `backends: ["cpu","cuda"] -> ["cpu","metal"]; devices: {"cpu":1,"cuda":2} -> {"metal":1,"other":0}`},
		event{"node.capabilities", "hive-01", `backends: ["cpu","metal"] -> []; devices: {"metal":1,"other":0} -> null`},
	)
}

// TestUnchangedWritesNothing watches the database's own count of changes: an operation
// without a change must not write.
func TestUnchangedWritesNothing(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), testNode()))
	changes := func() (n int) {
		check(t, r.Vault().Update(t.Context(), func(tx *vault.Tx) error {
			return tx.QueryRowContext(t.Context(), `SELECT total_changes()`).Scan(&n)
		}))
		return n
	}
	before := changes()
	check(t, r.AddNode(t.Context(), testNode()))
	check(t, r.UpdateNode(t.Context(), "hive-01", func(*Node) error { return nil }))
	check(t, r.UpdateStatus(t.Context(), "hive-01", StatusOnline))
	check(t, r.UpdateCapabilities(t.Context(), "hive-01", []string{"cuda", "cpu"}, map[string]uint32{"cpu": 1, "cuda": 2}))
	if after := changes(); after != before {
		t.Errorf("%d changes", after-before)
	}
}

func TestAuditActor(t *testing.T) {
	r := newRegistry(t)
	ctx := vault.WithActor(t.Context(), vault.Actor{Name: "ops@example.org", Via: "registry.test"})
	check(t, r.AddNode(ctx, testNode()))
	check(t, r.Vault().View(ctx, func(tx *vault.Tx) error {
		var actor, via string
		err := tx.QueryRowContext(ctx, `SELECT actor, via FROM audit_log WHERE action = 'node.add'`).Scan(&actor, &via)
		if actor != "ops@example.org" || via != "registry.test" {
			t.Errorf("got %q by %q", actor, via)
		}
		if err != nil {
			return err
		}
		_, err = tx.VerifyAudit(ctx)
		return err
	}))
}

func TestConcurrent(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), bareNode("counter")))
	const workers, rounds = 8, 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			name := fmt.Sprintf("hive-%02d", w)
			for i := range rounds {
				errs := []error{
					r.UpdateNode(t.Context(), "counter", func(n *Node) error { n.SSHPort++; return nil }),
					r.AddNode(t.Context(), bareNode(name)),
					r.UpdateStatus(t.Context(), name, StatusOnline),
				}
				if _, err := r.GetNode(t.Context(), name); err != nil {
					errs = append(errs, err)
				}
				if list, err := r.ListNodes(t.Context()); err != nil || len(list) < 2 {
					errs = append(errs, fmt.Errorf("list of %d: %w", len(list), err))
				}
				if i < rounds-1 {
					_, err := r.RemoveNode(t.Context(), name)
					errs = append(errs, err)
				}
				if err := errors.Join(errs...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := get(t, r, "counter").SSHPort; got != 22+workers*rounds {
		t.Errorf("counted to %d", got)
	}
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		_, err := tx.VerifyAudit(t.Context())
		return err
	}))
}
