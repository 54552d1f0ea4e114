package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// The crash matrix. Each call of the file system or the keyring in a transition is one point.
// At each point the call fails before its effect, or fails after it; or all calls fail from
// there on; or the process is killed before or after the call. Afterwards either the old vault
// or the new one must be complete, and a rerun must succeed.

// killed runs a scenario, or only opens the vault, in a child. The child is killed at a step,
// if it gets there.
func (s crashSite) killed(t *testing.T, scenario string, open method, at int, b faulttest.Fault) {
	t.Helper()
	s.killedWithDisk(t, scenario, open, at, b, "")
}

// killedWithDisk is killed with a Disk, whose power can be cut. lost is the directory of that Disk.
func (s crashSite) killedWithDisk(t *testing.T, scenario string, open method, at int, b faulttest.Fault, lost string) {
	t.Helper()
	cmd := child("crash", strings.Join([]string{scenario, s.dir, string(open), strconv.Itoa(at), string(b), lost}, "|"))
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v\n%s", err, out)
	}
}

func crashChild(spec string) {
	f := strings.Split(spec, "|")
	sc, ok := scenarios[f[0]]
	if !ok {
		sc = destructions[f[0]]
	}
	s := crashSite{f[1]}
	at, _ := strconv.Atoi(f[3])
	st := &faulttest.Steps{At: at, Fault: faulttest.Fault(f[4])}
	if f[5] != "" {
		st.Disk = &faulttest.Disk{Lost: f[5]}
	}
	var err error
	if f[2] != "" {
		err = openAndClose(context.Background(), sc.configBy(s, method(f[2]), st))
	} else {
		err = sc.run(context.Background(), s, st)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	st.End()
}

func TestCrashMatrix(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			counted := &faulttest.Steps{}
			ground := sc.prepare(t)
			before := ground.look(t, ground.configBy(ground.usual(), &faulttest.Steps{}))
			s := ground.copy(t)
			if err := sc.run(ctx, s, counted); err != nil {
				t.Fatal(err)
			}
			s.clean(t)
			steps := counted.Names()
			tally := map[string]int{}
			for at := 1; at <= len(steps); at++ {
				for _, b := range faulttest.Faults {
					if b == faulttest.KillBefore && at%2 == 1 && at > 1 {
						continue // the kill after the step before left the same files
					}
					tally["faults"]++
					s := ground.copy(t)
					if b.Kills() {
						s.killed(t, name, "", at, b)
						for i, w := range sc.methods {
							s.recovers(t, name, w, 0, before, tally)
							if (at+i)%2 == 0 {
								s.recovers(t, name, w, 1+(at+i)/2%6, before, tally)
							}
						}
						if b == faulttest.KillBefore || at%4 == 0 {
							// And a second kill, somewhere in what follows: in settling, or in
							// the next run.
							again := s.usual()
							if at%4 != 2 {
								again = ""
							}
							s.killed(t, name, again, 1+at*7%(len(steps)+1), b)
							tally["killed twice"]++
						}
					} else {
						st := &faulttest.Steps{At: at, Fault: b}
						err := sc.run(ctx, s, st)
						// The result must be the truth: with an error nothing has changed,
						// without one everything has.
						want := sc.outcome
						if err != nil && sc.later == nil { // a finished migration stays
							want = before
						}
						if errors.Is(err, vault.ErrUnsettled) { // the table is ahead of the slots file
							want = sc.outcome
						}
						if got := s.look(t, sc.config(s)); got != want {
							t.Errorf("%v was returned, and there is %s, not %s", err, got, want)
						}
					}
					s.ends(t, name, before, tally)
					if t.Failed() {
						t.Fatalf("step %d %s, %s\n%s", at, steps[at-1], b, s.listing())
					}
				}
			}
			t.Logf("%d steps: %v", len(steps), tally)
		})
	}
}

// ends checks that a site has either the old vault or the new one, complete; that a rerun
// succeeds; and that nothing is left over.
func (s crashSite) ends(t *testing.T, name, before string, tally map[string]int) {
	t.Helper()
	sc := scenarios[name]
	// Two runs may have added it twice.
	got := strings.NewReplacer("generation 3", "generation 2", "4 slots", "3 slots").Replace(s.look(t, sc.config(s)))
	tally["left "+got]++
	switch got {
	case before:
		if err := sc.run(t.Context(), s, &faulttest.Steps{}); err != nil {
			t.Fatalf("rerun: %v\n%s", err, s.listing())
		}
		if got := s.look(t, sc.config(s)); got != sc.outcome {
			t.Errorf("the rerun left %s", got)
		}
	case sc.outcome:
		if sc.leaves { // also what a killed run left after the success of another
			left, _ := filepath.Glob(s.recovery() + ".second.part-*")
			for _, path := range left {
				os.Remove(path)
			}
		}
	default:
		t.Errorf("there is %s", got)
	}
	s.clean(t)
	s.opensBy(t, filepath.Join(s.dir, "identity"), sc.config(s))
	if strings.HasPrefix(name, "init") {
		s.opensBy(t, s.recovery(), s.config(&faulttest.Steps{}))
	}
}

// recovers opens a copy of what a kill left, by one unlock method. If again is not 0, a second
// kill happens at that step of the open. It checks that everything is there, and that nothing
// is left over after the next open by the usual method.
func (s crashSite) recovers(t *testing.T, name string, w method, again int, before string, tally map[string]int) {
	t.Helper()
	sc := scenarios[name]
	if w == byRecovery && !exists(s.recovery()) {
		return // an init that did not get so far
	}
	s = s.copy(t)
	if again > 0 {
		s.killed(t, name, w, again, faulttest.KillAfter)
		tally["killed again in settling"]++
	}
	got := s.look(t, sc.configBy(s, w, &faulttest.Steps{}))
	if got != before && got != sc.outcome {
		t.Errorf("by %s: there is %s", w, got)
	}
	tally["opened by "+string(w)]++
	s.look(t, sc.config(s))
	if sc.clears(got) {
		s.clean(t)
	}
}
