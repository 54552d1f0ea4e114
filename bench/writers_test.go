package bench

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// BenchmarkWriters has eight goroutines write as often as they can, each change
// durable by itself, and reports how long one of them waits: on the median, for one
// in a hundred, and at most.
func BenchmarkWriters(b *testing.B) {
	nodes := fleet(1_000)
	o := newOurs(b, nodes)
	const writers = 8
	var mu sync.Mutex
	var waits []time.Duration
	for round := 0; b.Loop(); round++ {
		status := []registry.Status{registry.StatusOnline, registry.StatusOffline}[round%2]
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				var mine []time.Duration
				for i := range 25 {
					start := time.Now()
					if err := o.UpdateStatus(b.Context(), fmt.Sprintf("hive-%05d", w*100+i), status); err != nil {
						b.Error(err)
						return
					}
					mine = append(mine, time.Since(start))
				}
				mu.Lock()
				waits = append(waits, mine...)
				mu.Unlock()
			})
		}
		wg.Wait()
	}
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(waits[len(waits)-1].Microseconds()), "max-us")
}

// BenchmarkUpdateStates stores the states of a thousand nodes in one transaction:
// all changed, or none.
func BenchmarkUpdateStates(b *testing.B) {
	nodes := fleet(1_000)
	for _, changed := range []bool{true, false} {
		b.Run(fmt.Sprintf("changed=%t", changed), func(b *testing.B) {
			o := newOurs(b, nodes)
			rounds := 0
			for b.Loop() {
				if changed {
					rounds++
				}
				var states []registry.State
				for _, n := range nodes {
					states = append(states, registry.State{Node: n.Name, Status: []registry.Status{registry.StatusOnline, registry.StatusOffline}[rounds%2]})
				}
				if _, err := o.UpdateStates(b.Context(), states); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
