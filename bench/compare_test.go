package bench

import (
	"slices"
	"testing"
	"time"
)

// side does one thing n times, and tells how long that took.
type side func(n int) time.Duration

// turn is how long one side works before it is the other's turn.
const turn = 5 * time.Millisecond

// repeat makes a side of an operation in this process. i counts from 0 in each
// turn.
func repeat(tb testing.TB, do func(i int) error) side {
	return func(n int) time.Duration {
		start := time.Now()
		for i := range n {
			if err := do(i); err != nil {
				tb.Fatal(err)
			}
		}
		return time.Since(start)
	}
}

// compare lets both sides work in turns, and reports what an operation cost
// each, and the ratio.
func compare(b *testing.B, ours, plain side) { compareBy(b, calibrate(ours), ours, plain) }

// compareBy is compare with n operations a turn.
func compareBy(b *testing.B, n int, ours, plain side) {
	ours(n)
	plain(n)
	var our, their, ratios []float64
	for b.Loop() {
		// Who goes first changes too: the second finds the processor warmer.
		var t, p time.Duration
		if len(ratios)%2 == 0 {
			t, p = ours(n), plain(n)
		} else {
			p, t = plain(n), ours(n)
		}
		our = append(our, float64(t)/float64(n))
		their = append(their, float64(p)/float64(n))
		ratios = append(ratios, float64(t)/float64(p))
	}
	b.ReportMetric(median(our), "ns/op")
	b.ReportMetric(median(their), "plain-ns/op")
	b.ReportMetric(median(ratios), "ratio")
}

// calibrate finds how often an operation fits into a turn, and warms it up.
func calibrate(do side) int {
	for n := 1; ; n *= 2 {
		if took := do(n); took >= turn || n >= 1<<16 {
			return n
		}
	}
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}
