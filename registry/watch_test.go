package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestWatch: each change, by this process or another, is reported once. Watch writes
// nothing.
func TestWatch(t *testing.T) {
	cfg := vaulttest.Config(t)
	r := registry.New(vaulttest.Open(t, cfg))
	other := secondProcess(t, cfg)
	for _, name := range []string{"hive-01", "hive-02", "hive-03"} {
		if err := other("set", name, 1); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	changes := make(chan string)
	began := make(chan struct{})
	go func() {
		defer close(changes)
		close(began)
		for c, err := range r.Watch(ctx) {
			if err != nil {
				changes <- fmt.Sprint(errors.Is(err, context.Canceled))
				return
			}
			changes <- fmt.Sprintf("%s %t %t", c.Name, c.Before != nil, c.After != nil)
		}
	}()
	<-began
	// The watcher may not have taken its first look yet, so the first change is repeated
	// until it is reported.
	seen := ""
	for port := uint16(2); seen == ""; port++ {
		if err := other("set", "hive-01", port); err != nil {
			t.Fatal(err)
		}
		select {
		case seen = <-changes:
		case <-time.After(100 * time.Millisecond):
		}
	}
	if seen != "hive-01 true true" {
		t.Errorf("%s", seen)
	}
	// Several commits: the watcher may need more than one look.
	if err := other("remove", "hive-02", 0); err != nil {
		t.Fatal(err)
	}
	if err := apply(ctx, r, "set", "hive-04", 1); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for len(got) < 2 {
		if c := <-changes; c != "hive-01 true true" { // its last one
			got[c] = true
		}
	}
	if !got["hive-02 true false"] || !got["hive-04 false true"] {
		t.Errorf("%v", got)
	}
	cancel()
	if last := <-changes; last != "true" {
		t.Errorf("the end: %s", last)
	}
}
