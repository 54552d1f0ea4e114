package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkSSH runs a command on a node by "rbee-vault ssh" and by stock ssh with a key file, in
// turn. It reports the median of each, and of the differences, in milliseconds.
func BenchmarkSSH(b *testing.B) {
	h, server := oneHive(b)
	key := filepath.Join(b.TempDir(), "key")
	h.must("ssh-key", "export", "rbee@test", "-o", key, "--yes")
	stock := func() *exec.Cmd {
		return exec.Command("ssh", "-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "IdentityAgent=none",
			"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+knownHosts(b, "["+server.Host+"]:"+server.Port, server), "-o", "GlobalKnownHostsFile=none",
			"-p", server.Port, server.User+"@"+server.Host, "true")
	}
	run := func(cmd *exec.Cmd) float64 {
		begun := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return float64(time.Since(begun).Microseconds()) / 1000
	}
	var ours, theirs, more []float64
	for b.Loop() {
		o, s := run(h.ssh("hive-01", "true")), run(stock())
		ours, theirs, more = append(ours, o), append(theirs, s), append(more, o-s)
	}
	for unit, values := range map[string][]float64{"ms/rbee-vault": ours, "ms/ssh": theirs, "ms/more": more} {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], unit)
	}
	b.ReportMetric(0, "ns/op")
}
