package vault_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
)

// Power cuts: before each step of each scenario, and behind the last one, what was
// not flushed is gone: content without fsync, names without a flush of their
// directory. All of it, or in part, for nobody says what else has reached the disk.

// steps are steps that strike at one; a power cut needs a disk.
func (s crashSite) steps(at int, b faulttest.Blow) *faulttest.Steps {
	st := &faulttest.Steps{At: at, Blow: b}
	if slices.Contains(faulttest.Cuts, b) {
		st.Disk = s.disk()
	}
	return st
}

func (s crashSite) disk() *faulttest.Disk {
	return &faulttest.Disk{Lost: filepath.Join(s.dir, "lost")}
}

func TestPowerCuts(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ground := sc.prepare(t)
			before := ground.look(t, ground.config(&faulttest.Steps{}))
			s := ground.copy(t)
			counted := &faulttest.Steps{Disk: s.disk()}
			if err := sc.run(t.Context(), s, counted); err != nil {
				t.Fatal(err)
			}
			steps := append(counted.Names(), "the end")
			tally := map[string]int{}
			for at, step := range steps {
				at++
				if !counted.Unsafe(at) && at < len(steps) {
					continue // no more than a kill
				}
				for i, b := range faulttest.Cuts {
					tally["cuts"]++
					s := ground.copy(t)
					s.killed(t, name, "", at, b)
					if at == len(steps) {
						if got := s.look(t, sc.config(s)); got != sc.outcome {
							t.Errorf("cut behind the end, and there is %s", got)
						}
					}
					way := sc.ways[(at+i)%len(sc.ways)]
					s.recovers(t, name, way, 0, before, tally)
					if (at+i)%3 == 0 {
						// And again, in what comes after: in settling, or in the next run.
						again := s.usual()
						if at%2 == 0 {
							again = ""
						}
						s.killed(t, name, again, 1+at*7%len(steps), b)
						tally["cut twice"]++
					}
					s.ends(t, name, before, tally)
					if t.Failed() {
						t.Fatalf("step %d %s, %s\n%s", at, step, b, s.listing())
					}
				}
			}
			t.Logf("%d steps: %v", len(steps), tally)
		})
	}
}
