package registry_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func TestUpdateStates(t *testing.T) {
	r := registry.New(vaulttest.New(t))
	ctx := t.Context()
	err := r.Vault().Update(ctx, func(tx *vault.Tx) error {
		for i := range 1000 {
			if err := registry.InsertNodes(ctx, tx, keyNode(fmt.Sprintf("hive-%04d", i))); err != nil {
				return err
			}
		}
		return tx.Audit(ctx, vault.Event{Action: vault.Action("node.add")})
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_767_323_045, 0).UTC()
	states := func(status registry.Status, at time.Time, lag time.Duration) []registry.State {
		var all []registry.State
		for i := range 1000 {
			all = append(all, registry.State{Node: fmt.Sprintf("hive-%04d", i), Status: status, LastConnected: at, Lag: lag})
		}
		return all
	}
	for _, step := range []struct {
		name    string
		states  []registry.State
		written int
	}{
		{"first contact", states(registry.StatusOnline, now, time.Minute), 1000},
		{"the same", states(registry.StatusOnline, now, time.Minute), 0},
		{"a heartbeat within the lag", states(registry.StatusOnline, now.Add(time.Minute), time.Minute), 0},
		{"beyond it", states(registry.StatusOnline, now.Add(time.Minute+time.Second), time.Minute), 1000},
		{"another status, within the lag", states(registry.StatusOffline, now.Add(time.Minute+2*time.Second), time.Hour), 1000},
		{"a status alone", states(registry.StatusError, time.Time{}, 0), 1000},
		{"and again", states(registry.StatusError, time.Time{}, 0), 0},
	} {
		report, err := r.UpdateStates(ctx, step.states)
		if err != nil || report.Written != step.written || len(report.Missing) > 0 {
			t.Errorf("%s: %+v, %v, want %d written", step.name, report, err, step.written)
		}
	}
	n, err := r.GetNode(ctx, "hive-0007")
	if err != nil || n.Status != registry.StatusError || !n.LastConnected.Equal(now.Add(time.Minute+2*time.Second)) {
		t.Errorf("%+v, %v", n, err)
	}
	report, err := r.UpdateStates(ctx, []registry.State{{Node: "nobody", Status: registry.StatusOnline}, {Node: "hive-0001", Status: registry.StatusOnline}})
	if err != nil || report.Written != 1 || len(report.Missing) != 1 || report.Missing[0] != "nobody" {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := r.UpdateStates(ctx, []registry.State{{Node: "hive-0001", Status: "reachable"}}); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}
