package backup_test

import (
	"errors"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestPruneBucket: a credential that may only write removes nothing; another one removes the very
// versions that were recorded, and what a lock holds is said.
func TestPruneBucket(t *testing.T) {
	server, _, writer := bucketServer(t)
	v := vaulttest.Open(t, vaulttest.Config(t))
	free := addBucket(t, v, "free", server.URL, writer, 0)
	locked := addBucket(t, v, "locked", server.URL, writer, time.Hour)
	for range 3 {
		if _, err := backup.Create(t.Context(), v, backup.CreateOptions{Targets: []string{"free", "locked"}}); err != nil {
			t.Fatal(err)
		}
	}
	opts := backup.PruneOptions{Keep: backup.Keep{Last: 1}, Target: "free"}
	done := prune(t, v, opts)
	if sequencesOf(done, backup.PruneFailed) != "1 2" || !errors.Is(done[0].Err, backup.ErrDenied) {
		t.Errorf("by the writer: %+v", done)
	}
	if h, err := backup.Examine(t.Context(), v, backup.HealthOptions{}); err != nil || h.Has(backup.ProblemMissing) || h.States[0] != backup.FileRemote {
		t.Errorf("a target that does not say what it holds: %+v, %v", h, err)
	}
	store, objects := readAs(t, free, server.URL, server.Root)
	opts.Store = store
	if done := prune(t, v, opts); sequencesOf(done, backup.PruneRemoved) != "1 2" {
		t.Errorf("by another: %+v", done)
	}
	if _, left := readAs(t, free, server.URL, server.Root); len(objects) != 3 || len(left) != 1 || left[0].Hidden || left[0].Version != objects[0].Version {
		t.Errorf("left: %+v, of %+v", left, objects)
	}
	if found, err := backup.Inventory(t.Context(), v, "free", store); err != nil || len(found) != 1 || found[0].State != backup.FilePresent || found[0].Sequence != 3 {
		t.Errorf("%+v, %v", found, err)
	}

	opts.Target = "locked"
	opts.Store, objects = readAs(t, locked, server.URL, server.Root)
	if done := prune(t, v, opts); sequencesOf(done, backup.PruneLocked) != "1 2" {
		t.Errorf("%+v", done)
	}
	change(t, v, `UPDATE backup_copies SET locked_until = NULL`) // the store knows better
	if done := prune(t, v, opts); sequencesOf(done, backup.PruneLocked) != "1 2" {
		t.Errorf("%+v", done)
	}
	if _, left := readAs(t, locked, server.URL, server.Root); len(left) != len(objects) {
		t.Errorf("%+v", left)
	}
}
