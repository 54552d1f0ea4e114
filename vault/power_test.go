package vault_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
)

// Power cuts. Before each step of each scenario, and after the last step, what was not flushed
// is lost: content without fsync, and names without a flush of their directory. All of it is
// lost, or a part, because nothing says what else has reached the disk.

// lost is the directory in which a Disk keeps what was not flushed.
func (s crashSite) lost() string { return filepath.Join(s.dir, "lost") }

// cut runs a scenario that ends with the power cut.
func (s crashSite) cut(t *testing.T, scenario string, open method, at int, b faulttest.Fault) {
	t.Helper()
	s.killedWithDisk(t, scenario, open, at, b, s.lost())
}

func TestPowerCuts(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ground := sc.prepare(t)
			before := ground.look(t, ground.config(&faulttest.Steps{}))
			s := ground.copy(t)
			counted := &faulttest.Steps{Disk: &faulttest.Disk{Lost: s.lost()}}
			if err := sc.run(t.Context(), s, counted); err != nil {
				t.Fatal(err)
			}
			steps := append(counted.Names(), "the end")
			tally := map[string]int{}
			for at, step := range steps {
				at++
				if !counted.Unsafe(at) && at < len(steps) {
					continue // the same as a kill
				}
				for i, b := range faulttest.Cuts {
					tally["cuts"]++
					s := ground.copy(t)
					s.cut(t, name, "", at, b)
					if at == len(steps) {
						if got := s.look(t, sc.config(s)); got != sc.outcome {
							t.Errorf("cut behind the end, and there is %s", got)
						}
					}
					w := sc.methods[(at+i)%len(sc.methods)]
					s.recovers(t, name, w, 0, before, tally)
					if (at+i)%3 == 0 {
						// And a second cut in what follows: in settling, or in the next run.
						again := s.usual()
						if at%2 == 0 {
							again = ""
						}
						s.cut(t, name, again, 1+at*7%len(steps), b)
						tally["cut twice"]++
					}
					s.ends(t, name, before, tally)
					if t.Failed() {
						t.Fatalf("step %d %s, %s\n%s", at, step, b, s.listing())
					}
				}
			}
			// A kill leaves what was not flushed, and the power is cut in what follows. All of
			// it is lost, if that includes a database in place.
			for at := 2; at < len(steps); at++ {
				if !counted.Unsafe(at) {
					continue
				}
				first, last := 1+at*3%8, 1+at*3%8
				if strings.HasSuffix(steps[at-2], " beehives.db") {
					first, last = 1, 8
				}
				for then := first; then <= last; then++ {
					tally["killed, then cut"]++
					b := faulttest.Cuts[(at+then)%3]
					s := ground.copy(t)
					s.killedWithDisk(t, name, "", at, faulttest.KillBefore, s.lost())
					s.cut(t, name, s.usual(), then, b)
					os.RemoveAll(s.lost()) // if it did not get so far
					s.ends(t, name, before, tally)
					if t.Failed() {
						t.Fatalf("killed at step %d %s, and then %s at %d\n%s", at, steps[at-1], b, then, s.listing())
					}
				}
			}
			t.Logf("%d steps: %v", len(steps), tally)
		})
	}
}
