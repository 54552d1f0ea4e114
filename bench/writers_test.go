package bench

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// BenchmarkWriters has goroutines write as often as they can, each change durable by itself: a
// status, or a new node with its audit row. It reports how many changes are stored a second, and
// how long one of them waits: on the median, for one in a hundred, and at most.
func BenchmarkWriters(b *testing.B) {
	nodes := fleet(1_000)
	for _, writers := range []int{1, 8, 16} {
		b.Run(fmt.Sprintf("status/%d", writers), func(b *testing.B) {
			o := newOurs(b, nodes)
			benchmarkWriters(b, writers, func(w, round, i int) error {
				status := []registry.Status{registry.StatusOnline, registry.StatusOffline}[round%2]
				return o.UpdateStatus(b.Context(), o.name(w*25+i), status)
			})
		})
		b.Run(fmt.Sprintf("add/%d", writers), func(b *testing.B) {
			o := newOurs(b, nodes)
			benchmarkWriters(b, writers, func(w, round, i int) error {
				n := nodes[i]
				n.Name = fmt.Sprintf("new-%02d-%06d-%02d", w, round, i)
				return o.AddNode(b.Context(), n)
			})
		})
	}
}

// benchmarkWriters has each writer call write 25 times a round, with its own number.
func benchmarkWriters(b *testing.B, writers int, write func(w, round, i int) error) {
	var mu sync.Mutex
	var waits []time.Duration
	for round := 0; b.Loop(); round++ {
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				var mine []time.Duration
				for i := range 25 {
					start := time.Now()
					if err := write(w, round, i); err != nil {
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
	b.ReportMetric(float64(len(waits))/b.Elapsed().Seconds(), "writes/s")
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
