package registry

import (
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestUpdateStatusAsItIs: a status that the node has already takes no write lock, also where
// this Registry did not store it. A status that another handle stored meanwhile is replaced.
func TestUpdateStatusAsItIs(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Wait = 50 * time.Millisecond
	ctx := t.Context()
	r, err := Open(ctx, cfg)
	check(t, err)
	defer r.Close()
	check(t, r.AddNode(ctx, testNode()))
	other := New(r.Vault())
	check(t, other.UpdateStatus(ctx, "hive-01", StatusOffline))
	check(t, r.UpdateStatus(ctx, "hive-01", StatusOffline)) // r knows the status from here on

	lock := durable.NewLock(cfg.Path + ".write")
	check(t, lock.Exclusive(ctx))
	check(t, r.UpdateStatus(ctx, "hive-01", StatusOffline))
	check(t, New(r.Vault()).UpdateStatus(ctx, "hive-01", StatusOffline))
	wantErr(t, r.UpdateStatus(ctx, "hive-01", StatusOnline), vault.ErrLocked)
	check(t, r.UpdateStatus(ctx, "hive-01", StatusOffline)) // the failed call changed nothing
	check(t, lock.Unlock())

	check(t, other.UpdateStatus(ctx, "hive-01", StatusOnline))
	check(t, r.UpdateStatus(ctx, "hive-01", StatusOffline))
	want := testNode()
	want.Status = StatusOffline
	wantNode(t, r, want)
}
