package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// pruneSite makes a vault with five backups in a directory, and the first four in a target too.
func pruneSite(t *testing.T) (cfg vault.Config, v *vault.Vault, dir, target string) {
	t.Helper()
	cfg = vaulttest.Config(t)
	v = vaulttest.Open(t, cfg)
	dir, target = filepath.Join(filepath.Dir(cfg.Path), "backups"), vaulttest.Dir(t)
	if err := backup.AddTarget(t.Context(), v, backup.Target{Name: "disk", URL: "dir:" + target}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		opts := backup.CreateOptions{Dir: dir}
		if i%2 == 1 {
			opts = backup.CreateOptions{Targets: []string{"disk"}}
		}
		if _, err := backup.Create(t.Context(), v, opts); err != nil {
			t.Fatal(err)
		}
	}
	return cfg, v, dir, target // 1, 3, 5 in dir; 2, 4 in target
}

func sequencesOf(plan []backup.Pruned, result backup.PruneResult) string {
	var found []string
	for _, p := range plan {
		if p.Result == result {
			found = append(found, fmt.Sprint(p.Record.Sequence))
		}
	}
	slices.Sort(found)
	return strings.Join(found, " ")
}

func prune(t *testing.T, v *vault.Vault, opts backup.PruneOptions) []backup.Pruned {
	t.Helper()
	plan, err := backup.PlanPrune(t.Context(), v, opts)
	if err != nil {
		t.Fatal(err)
	}
	done, err := backup.Prune(t.Context(), v, plan, opts)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// proveFirst proves the first backup by a drill.
func proveFirst(t *testing.T, cfg vault.Config, v *vault.Vault) {
	t.Helper()
	records, err := backup.List(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(records[0].Copies[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := backup.Prove(t.Context(), v, f, drillOptions(cfg)); err != nil {
		t.Fatal(err)
	}
}

func filesIn(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestPrune: each place keeps its newest; a stranger's file and the one proven last stay.
func TestPrune(t *testing.T) {
	cfg, v, dir, target := pruneSite(t)
	stranger := filepath.Join(dir, "beehives-20200101T000000Z-000001.tar.gz.age")
	if err := os.WriteFile(stranger, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	proveFirst(t, cfg, v)
	one := backup.Keep{Last: 1}
	if _, err := backup.PlanPrune(t.Context(), v, backup.PruneOptions{Keep: one, Target: "nothing"}); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
	if _, err := backup.PlanPrune(t.Context(), v, backup.PruneOptions{}); !errors.Is(err, vault.ErrInvalid) {
		t.Error(err)
	}
	if done := prune(t, v, backup.PruneOptions{Keep: one, Target: "disk"}); sequencesOf(done, backup.PruneRemoved) != "2" || len(done) != 1 {
		t.Errorf("%+v", done)
	}
	if filesIn(t, target) != 1 || filesIn(t, dir) != 4 {
		t.Errorf("%d and %d files", filesIn(t, target), filesIn(t, dir))
	}
	if row := lastAuditRow(t, v); row.Action != "backup.prune" || row.Subject != "disk" || row.Detail != "2" {
		t.Errorf("%+v", row)
	}
	if done := prune(t, v, backup.PruneOptions{Keep: one}); sequencesOf(done, backup.PruneRemoved) != "3" || len(done) != 1 {
		t.Errorf("%+v", done) // 1 is proven, 2 is gone
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Error("a file that the vault did not record is removed")
	}
	records, err := backup.List(t.Context(), v)
	if err != nil || len(records) != 5 || records[1].Copies[0].Gone.IsZero() || records[2].SHA256 == "" {
		t.Errorf("%+v, %v", records, err)
	}
}

// TestPruneCompares: what is not as recorded stays, and stops nothing else; where the newest is
// not as recorded, nothing is removed.
func TestPruneCompares(t *testing.T) {
	for name, tt := range map[string]struct {
		sequence int64 // which file
		harm     func(path string) error
		result   map[backup.PruneResult]string
	}{
		"changed":        {1, func(p string) error { return flip(p, 50) }, map[backup.PruneResult]string{backup.PruneFailed: "1", backup.PruneRemoved: "3"}},
		"longer":         {1, func(p string) error { return appendTo(p) }, map[backup.PruneResult]string{backup.PruneFailed: "1", backup.PruneRemoved: "3"}},
		"removed":        {1, os.Remove, map[backup.PruneResult]string{backup.PruneGone: "1", backup.PruneRemoved: "3"}},
		"newest changed": {5, func(p string) error { return flip(p, 50) }, map[backup.PruneResult]string{backup.PruneFailed: "1 3"}},
		"newest removed": {5, os.Remove, map[backup.PruneResult]string{backup.PruneFailed: "1 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, v, _, target := pruneSite(t)
			records, err := backup.List(t.Context(), v)
			if err == nil {
				err = tt.harm(records[tt.sequence-1].Copies[0].Name)
			}
			if err != nil {
				t.Fatal(err)
			}
			done := prune(t, v, backup.PruneOptions{Keep: backup.Keep{Last: 1}})
			for _, result := range []backup.PruneResult{backup.PruneFailed, backup.PruneGone} {
				if got := sequencesOf(done, result); got != tt.result[result] {
					t.Errorf("%s: %q, want %q", result, got, tt.result[result])
				}
			}
			if removed := strings.TrimSpace("2 " + tt.result[backup.PruneRemoved]); sequencesOf(done, backup.PruneRemoved) != removed {
				t.Errorf("removed: %q, want %q", sequencesOf(done, backup.PruneRemoved), removed)
			}
			if filesIn(t, target) != 1 {
				t.Error("a failure at one place stops another")
			}
		})
	}
}

func flip(path string, at int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[at] ^= 1
	return os.WriteFile(path, data, 0o600)
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write([]byte("x"))
	return err
}

// TestPruneLocked: a lock that is known is not tried; one that the store reports is said.
func TestPruneLocked(t *testing.T) {
	_, v, dir, _ := pruneSite(t)
	until := time.Now().Add(time.Hour).UnixMilli()
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		_, err := tx.ExecContext(t.Context(), `UPDATE backup_copies SET locked_until = ? WHERE sequence = 1`, until)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	opts := backup.PruneOptions{Keep: backup.Keep{Last: 1}}
	plan, err := backup.PlanPrune(t.Context(), v, opts)
	if err != nil || sequencesOf(plan, backup.PruneLocked) != "1" || sequencesOf(plan, backup.PruneDue) != "2 3" {
		t.Errorf("%+v, %v", plan, err)
	}
	opts.Wrap(func(s backup.Store) backup.Store { return lockedStore{s} })
	done, err := backup.Prune(t.Context(), v, plan, opts)
	if err != nil || sequencesOf(done, backup.PruneLocked) != "1 2 3" || filesIn(t, dir) != 3 {
		t.Errorf("%+v, %v", done, err)
	}
	if records, err := backup.List(t.Context(), v); err != nil || !records[2].Copies[0].There() {
		t.Errorf("%+v, %v", records, err)
	}
}

// lockedStore deletes nothing yet.
type lockedStore struct{ backup.Store }

func (lockedStore) Remove(context.Context, string, string) error { return backup.ErrLocked }

// TestPruneCancelled: what was removed is recorded, even if the caller gave up meanwhile.
func TestPruneCancelled(t *testing.T) {
	_, v, dir, _ := pruneSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opts := backup.PruneOptions{Keep: backup.Keep{Last: 1}}
	opts.Wrap(func(s backup.Store) backup.Store { return cancellingStore{s, cancel} })
	plan, err := backup.PlanPrune(ctx, v, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Prune(ctx, v, plan, opts); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	records, err := backup.List(t.Context(), v)
	if err != nil || records[0].Copies[0].Gone.IsZero() || !records[2].Copies[0].Gone.IsZero() || filesIn(t, dir) != 2 {
		t.Errorf("gone: %s, %s; %d files, %v", records[0].Copies[0].Gone, records[2].Copies[0].Gone, filesIn(t, dir), err)
	}
}

// cancellingStore cancels when it has removed something.
type cancellingStore struct {
	backup.Store
	cancel func()
}

func (s cancellingStore) Remove(ctx context.Context, name, version string) error {
	defer s.cancel()
	return s.Store.Remove(ctx, name, version)
}

// TestPruneNewest: the newest of a place stays, whatever the plan says.
func TestPruneNewest(t *testing.T) {
	_, v, dir, _ := pruneSite(t)
	records, err := backup.List(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	var plan []backup.Pruned
	for _, r := range records {
		plan = append(plan, backup.Pruned{Record: r, Copy: r.Copies[0], Result: backup.PruneDue})
	}
	done, err := backup.Prune(t.Context(), v, plan, backup.PruneOptions{})
	if err != nil || sequencesOf(done, backup.PruneRemoved) != "1 2 3" || filesIn(t, dir) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestPruneProvenSince: a backup that was proven behind the plan stays.
func TestPruneProvenSince(t *testing.T) {
	cfg, v, dir, _ := pruneSite(t)
	opts := backup.PruneOptions{Keep: backup.Keep{Last: 1}}
	plan, err := backup.PlanPrune(t.Context(), v, opts)
	if err != nil || sequencesOf(plan, backup.PruneDue) != "1 2 3" {
		t.Fatalf("%+v, %v", plan, err)
	}
	proveFirst(t, cfg, v)
	done, err := backup.Prune(t.Context(), v, plan, opts)
	if err != nil || sequencesOf(done, backup.PruneRemoved) != "2 3" || filesIn(t, dir) != 2 {
		t.Errorf("%+v, %d files, %v", done, filesIn(t, dir), err)
	}
}

// TestPruneLink: what is not a file stays in the place of a copy, and nothing follows it.
func TestPruneLink(t *testing.T) {
	_, v, dir, _ := pruneSite(t)
	records, err := backup.List(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	path, elsewhere := records[0].Copies[0].Name, filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Rename(path, elsewhere); err != nil {
		t.Fatal(err)
	}
	for says, put := range map[string]func() error{
		"symbolic links":     func() error { return os.Symlink(elsewhere, path) },
		"not a regular file": func() error { return syscall.Mkfifo(path, 0o600) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		done := prune(t, v, backup.PruneOptions{Keep: backup.Keep{Last: 1}})
		if sequencesOf(done, backup.PruneFailed) != "1" || !errors.Is(done[0].Err, vault.ErrDamaged) || !strings.Contains(done[0].Err.Error(), says) {
			t.Errorf("%s: %+v in %s", says, done, dir)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
