package bench

import (
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

var growthNodes = flag.Int("growth-nodes", 10_000, "the largest fleet of BenchmarkGrowth, in `nodes`; 1000000 takes minutes")

// BenchmarkGrowth does the same with fleets that are ten times larger each.
func BenchmarkGrowth(b *testing.B) {
	for size := 1_000; size <= *growthNodes; size *= 10 {
		cfg := vaulttest.Config(b)
		fill(b, cfg, size)
		one := fleet(1)[0]
		b.Run(fmt.Sprint("open/", size), func(b *testing.B) { // with one read, as a command does
			for b.Loop() {
				r, err := registry.Open(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := r.GetNode(b.Context(), one.Name); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
		r := registry.New(vaulttest.Open(b, cfg))
		b.Run(fmt.Sprint("list/", size), func(b *testing.B) { growList(b, r) })
		b.Run(fmt.Sprint("get/", size), func(b *testing.B) {
			for b.Loop() {
				if _, err := r.GetNode(b.Context(), one.Name); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("watch/", size), func(b *testing.B) { growWatch(b, r, one.Name) })
		b.Run(fmt.Sprint("add/", size), func(b *testing.B) {
			n := one
			for i := 0; b.Loop(); i++ {
				n.Name = fmt.Sprintf("added-%d-%d", b.N, i)
				if err := r.CreateNode(b.Context(), n); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("backup/", size), func(b *testing.B) {
			for b.Loop() {
				if _, err := backup.Create(b.Context(), r.Vault(), backup.CreateOptions{Path: filepath.Join(b.TempDir(), "backup")}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fill makes a fleet of so many nodes.
func fill(b *testing.B, cfg vault.Config, size int) {
	b.Helper()
	v := vaulttest.Open(b, cfg)
	for first := 0; first < size; first += 10_000 {
		err := v.Update(b.Context(), func(tx *vault.Tx) error {
			if err := registry.InsertNodes(b.Context(), tx, fleet(min(first+10_000, size))[first:]...); err != nil {
				return err
			}
			return tx.Audit(b.Context(), vault.Event{Action: registry.ActionAddNode})
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
}

// growList reads all nodes by a registry that has read nothing yet, and reports how much memory
// they take.
func growList(b *testing.B, r *registry.Registry) {
	var s registry.Snapshot
	before := liveBytes()
	for b.Loop() {
		var err error
		if s, err = registry.New(r.Vault()).Snapshot(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(liveBytes()-before)/(1<<20), "held-MB")
	runtime.KeepAlive(s)
}

func liveBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// growWatch looks for what changed after one change.
func growWatch(b *testing.B, r *registry.Registry, name string) {
	before, err := r.Snapshot(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		if err := r.UpdateLastConnected(b.Context(), name); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		after, err := r.Snapshot(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		changes := 0
		for range after.Since(before) {
			changes++
		}
		if before = after; changes > 1 {
			b.Fatalf("%d changes", changes)
		}
	}
}
