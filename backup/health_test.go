package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// change executes statements in the vault, as time would change it.
func change(t testing.TB, v *vault.Vault, statement string, args ...any) {
	t.Helper()
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		_, err := tx.ExecContext(t.Context(), statement, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// twoTargets makes a vault with a node and two targets, of which the second has a backup that
// somebody else put there.
func twoTargets(t *testing.T) (v *vault.Vault, dirs [2]string) {
	t.Helper()
	v = vaulttest.New(t)
	if err := registry.New(v).CreateNode(t.Context(), node("hive-01")); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"first", "second"} {
		dirs[i] = vaulttest.Dir(t)
		if err := backup.AddTarget(t.Context(), v, backup.Target{Name: name, URL: "dir:" + dirs[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dirs[1], "stranger.tar.gz.age"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return v, dirs
}

var both = backup.CreateOptions{Targets: []string{"first", "second"}}

// TestConfirm: a backup is not needed only if the newest holds the same, for the same readers,
// and is everywhere, for long enough.
func TestConfirm(t *testing.T) {
	retained := func(left time.Duration) func(*testing.T, *vault.Vault, [2]string) {
		return func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `UPDATE backup_copies SET locked_until = ? WHERE target = 'bucket'`, time.Now().Add(left).UnixMilli())
		}
	}
	failed := func(target string) func(*testing.T, *vault.Vault, [2]string) {
		return func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `INSERT INTO backups (sequence, created) VALUES (2, 1)`)
			change(t, v, `INSERT INTO backup_copies (sequence, target, name, failed) VALUES (2, ?, 'x', 'no such directory')`, target)
		}
	}
	for name, tt := range map[string]struct {
		change    func(*testing.T, *vault.Vault, [2]string)
		opts      backup.CreateOptions
		confirmed bool
	}{
		"nothing": {nil, both, true},
		"a state": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			if err := registry.New(v).UpdateStatus(t.Context(), "hive-01", registry.StatusOffline); err != nil {
				t.Fatal(err)
			}
		}, both, true},
		"one of them": {nil, backup.CreateOptions{Targets: []string{"second"}}, true},
		"a node": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			if _, err := registry.New(v).RemoveNode(t.Context(), "hive-01"); err != nil {
				t.Fatal(err)
			}
		}, both, false},
		"another target": {nil, backup.CreateOptions{Targets: []string{"first", "second", "bucket2"}}, false},
		"another reader": {nil, backup.CreateOptions{Targets: both.Targets, Recipients: []string{"age1x"}}, false},
		"a directory":    {nil, backup.CreateOptions{Dir: "/tmp"}, false},
		"a removed file": {func(t *testing.T, _ *vault.Vault, dirs [2]string) { removeAll(t, dirs[1]) }, both, false},
		"a cut file":     {func(t *testing.T, _ *vault.Vault, dirs [2]string) { cutAll(t, dirs[0]) }, both, false},
		"a pruned copy":  {func(t *testing.T, v *vault.Vault, _ [2]string) { change(t, v, `UPDATE backup_copies SET gone = 1`) }, both, false},
		"a failed copy": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `UPDATE backup_copies SET written = NULL`)
		}, both, false},
		"a long lock":  {retained(16 * 24 * time.Hour), backup.CreateOptions{Targets: []string{"bucket"}}, true},
		"a short lock": {retained(14 * 24 * time.Hour), backup.CreateOptions{Targets: []string{"bucket"}}, false},
		"no lock":      {func(*testing.T, *vault.Vault, [2]string) {}, backup.CreateOptions{Targets: []string{"bucket"}}, false},
		"a newer failure": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `INSERT INTO backups (sequence, created) VALUES (2, 1)`)
		}, both, true},
		"a newer failure there":     {failed("second"), both, false},
		"a newer failure elsewhere": {failed("second"), backup.CreateOptions{Targets: []string{"first"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			v, dirs := twoTargets(t)
			if err := backup.AddTarget(t.Context(), v, backup.Target{Name: "bucket", URL: "s3://backups/p", Retain: 30 * 24 * time.Hour}); err != nil {
				t.Fatal(err)
			}
			if _, confirmed, err := backup.Confirm(t.Context(), v, tt.opts); err != nil || confirmed {
				t.Errorf("before the first backup: %t, %v", confirmed, err)
			}
			if _, err := backup.Create(t.Context(), v, both); err != nil {
				t.Fatal(err)
			}
			change(t, v, `INSERT INTO backup_copies (sequence, target, name, written) VALUES (1, 'bucket', 'x', 1)`)
			if tt.change != nil {
				tt.change(t, v, dirs)
			}
			last, confirmed, err := backup.Confirm(t.Context(), v, tt.opts)
			if err != nil || confirmed != tt.confirmed {
				t.Errorf("confirmed %t, %v", confirmed, err)
			}
			records, err := backup.List(t.Context(), v)
			if err != nil || records[0].Confirmed.IsZero() == tt.confirmed {
				t.Errorf("%+v, %v", records[0], err)
			}
			if confirmed && !last.AsOf().After(last.Created) {
				t.Errorf("%+v", last)
			}
		})
	}
	v := vaulttest.New(t)
	if _, _, err := backup.Confirm(t.Context(), v, backup.CreateOptions{Path: "/x"}); !errors.Is(err, vault.ErrInvalid) {
		t.Error(err)
	}
}

func removeAll(t *testing.T, dir string) { eachFile(t, dir, os.Remove) }

func cutAll(t *testing.T, dir string) {
	eachFile(t, dir, func(path string) error { return os.Truncate(path, 10) })
}

func eachFile(t *testing.T, dir string, do func(path string) error) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "beehives-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, path := range files {
		if err := do(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInventory: what is in a target, and what should be.
func TestInventory(t *testing.T) {
	v, dirs := twoTargets(t)
	look := func() (states string) {
		found, err := backup.Inventory(t.Context(), v, "second", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			states += fmt.Sprintf("%d %s, ", f.Sequence, f.State)
		}
		return strings.TrimSuffix(states, ", ")
	}
	if got := look(); got != "0 unknown" {
		t.Error(got)
	}
	// Only files are backups.
	link := filepath.Join(dirs[1], "link.tar.gz.age")
	if err := errors.Join(os.Symlink("/etc/passwd", link), syscall.Mkfifo(filepath.Join(dirs[1], "pipe.tar.gz.age"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != "0 unknown" {
		t.Error(got)
	}
	for range 2 {
		if _, err := backup.Create(t.Context(), v, both); err != nil {
			t.Fatal(err)
		}
	}
	if got := look(); got != "0 unknown, 1 present, 2 present" {
		t.Error(got)
	}
	change(t, v, `UPDATE backup_copies SET gone = 1 WHERE sequence = 1`)
	cutAll(t, dirs[1])
	if got := look(); got != "0 unknown, 0 unknown, 2 changed" {
		t.Error(got)
	}
	removeAll(t, dirs[1])
	if got := look(); got != "0 unknown, 2 missing" {
		t.Error(got)
	}
	if _, err := backup.Inventory(t.Context(), v, "nothing", nil); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
}

// TestExamine: each problem by itself, for a person and for Prometheus.
func TestExamine(t *testing.T) {
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).UnixMilli() }
	const day = 24 * time.Hour
	for name, tt := range map[string]struct {
		change func(*testing.T, *vault.Vault, [2]string)
		want   string
	}{
		"well": {nil, ""},
		"old": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `UPDATE backups SET created = ?`, ago(31*day))
		}, "stale"},
		"old, confirmed": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `UPDATE backups SET created = ?, confirmed = ?`, ago(31*day), ago(day))
		}, ""},
		"failed at one": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `UPDATE backup_copies SET failed = 'disk full', written = NULL WHERE target = 'first'`)
		}, "failing missing"},
		"failed everywhere": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `INSERT INTO backups (sequence, created) VALUES (2, 1)`)
			change(t, v, `INSERT INTO backup_copies (sequence, target, name, failed) VALUES (2, 'first', 'x', 'disk full')`)
		}, "failing"},
		"removed": {func(t *testing.T, _ *vault.Vault, dirs [2]string) { removeAll(t, dirs[0]) }, "missing"},
		"cut":     {func(t *testing.T, _ *vault.Vault, dirs [2]string) { cutAll(t, dirs[1]) }, "missing"},
		"a new target": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			if err := backup.AddTarget(t.Context(), v, backup.Target{Name: "third", URL: "dir:/srv/third"}); err != nil {
				t.Fatal(err)
			}
		}, "missing"},
		"never proven": {func(t *testing.T, v *vault.Vault, _ [2]string) { change(t, v, `DELETE FROM backup_drills`) }, "unproven"},
		"proven before": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `UPDATE backup_drills SET at = ?`, ago(91*day))
		}, "unproven"},
		"another's": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `UPDATE backup_drills SET sequence = NULL`)
		}, "unproven"},
		"a failed drill": {func(t *testing.T, v *vault.Vault, _ [2]string) {
			change(t, v, `INSERT INTO backup_drills (at, sequence, sums_sha256, unlocked_by, took, failed, receipt, signature) VALUES (?, 1, '', '', 1, 'why', '', '')`, ago(0))
		}, "drill"},
	} {
		t.Run(name, func(t *testing.T) {
			v, dirs := twoTargets(t)
			identity := newReader(t, v)
			if _, err := backup.Create(t.Context(), v, both); err != nil {
				t.Fatal(err)
			}
			prove(t, v, identity)
			if tt.change != nil {
				tt.change(t, v, dirs)
			}
			h, err := backup.Examine(t.Context(), v, backup.HealthOptions{})
			if err != nil {
				t.Fatal(err)
			}
			checkHealth(t, h, strings.Fields(tt.want))
		})
	}
	h, err := backup.Examine(t.Context(), vaulttest.New(t), backup.HealthOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checkHealth(t, h, []string{"stale"})
}

// checkHealth compares the problems, and what Prometheus is told of them.
func checkHealth(t *testing.T, h backup.Health, want []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.prom")
	for range 2 { // the second one replaces the first
		if err := h.WriteMetrics(path); err != nil {
			t.Fatal(err)
		}
	}
	metrics, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range backup.ProblemKinds {
		wanted := strings.Contains(" "+strings.Join(want, " ")+" ", " "+string(kind)+" ")
		line := fmt.Sprintf("\nrbee_vault_backup_problem{kind=%q} %d\n", kind, map[bool]int{true: 1}[wanted])
		if h.Has(kind) != wanted || !bytes.Contains(metrics, []byte(line)) {
			t.Errorf("%s: %+v\n%s", kind, h.Problems, metrics)
		}
	}
}

// newReader adds a recipient to the vault, and returns its identity.
func newReader(t *testing.T, v *vault.Vault) age.Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err == nil {
		_, err = v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: identity.Recipient().String()})
	}
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// prove tries the newest backup out.
func prove(t *testing.T, v *vault.Vault, identity age.Identity) {
	t.Helper()
	records, err := backup.List(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	r, err := records[len(records)-1].Open(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := backup.Prove(t.Context(), v, r, backup.DrillOptions{ReadOptions: backup.ReadOptions{Identities: []age.Identity{identity}}}); err != nil {
		t.Fatal(err)
	}
}

// TestReaders: who opens which of the backups that are kept.
func TestReaders(t *testing.T) {
	there := []backup.Copy{{Written: time.Now()}}
	gone := []backup.Copy{{Written: time.Now(), Gone: time.Now()}}
	a, b := backup.Recipient{Recipient: "age1a", Label: "anna"}, backup.Recipient{Recipient: "age1b"}
	var text []string
	for _, r := range backup.Readers([]backup.Record{
		{Sequence: 1, Copies: there, Recipients: []backup.Recipient{a}},
		{Sequence: 2, Copies: there, Recipients: []backup.Recipient{a, b}},
		{Sequence: 3, Copies: gone, Recipients: []backup.Recipient{a, b}},
		{Sequence: 4, Copies: there, Recipients: []backup.Recipient{a}},
		{Sequence: 5, Copies: there, Recipients: []backup.Recipient{a}},
	}) {
		text = append(text, r.Name()+": "+backup.Ranges(r.Sequences))
	}
	if got := strings.Join(text, "; "); got != "anna: 1-2, 4-5; age1b: 2" {
		t.Error(got)
	}
}
