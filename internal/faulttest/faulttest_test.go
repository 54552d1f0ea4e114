package faulttest_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

func TestKeyring(t *testing.T) {
	dir := t.TempDir()
	keyringtest.Contract(t, func(*testing.T) keyringtest.K {
		return faulttest.Keyring{Dir: dir, Steps: &faulttest.Steps{}}
	})
	k := faulttest.Keyring{Dir: dir, Steps: &faulttest.Steps{}}
	if err := k.Set(t.Context(), "a/b", "value"); err != nil {
		t.Fatal(err)
	}
	if accounts, err := k.Accounts(); err != nil || !slices.Equal(accounts, []string{"a/b"}) {
		t.Errorf("%q, %v", accounts, err)
	}
}

// TestSteps: the fault is at its step, before or after the effect.
func TestSteps(t *testing.T) {
	for _, test := range []struct {
		fault   faulttest.Fault
		effects []int // the calls that took effect
		errs    []int // the calls that failed
	}{
		{faulttest.FailBefore, []int{1, 3, 4}, []int{2}},
		{faulttest.FailAfter, []int{1, 2, 3, 4}, []int{2}},
		{faulttest.FailOnwards, []int{1}, []int{2, 3, 4}},
		{"", []int{1, 2, 3, 4}, nil},
	} {
		steps := &faulttest.Steps{At: 2, Fault: test.fault}
		var effects, errs []int
		for n := 1; n <= 4; n++ {
			err := steps.Do(string(rune('a'+n-1)), func() error { effects = append(effects, n); return nil })
			if errors.Is(err, faulttest.ErrFault) {
				errs = append(errs, n)
			}
		}
		if !slices.Equal(effects, test.effects) || !slices.Equal(errs, test.errs) || steps.FaultStep() != "b" || steps.N() != 4 {
			t.Errorf("%q: effects %v, errors %v, fault step %q of %d", test.fault, effects, errs, steps.FaultStep(), steps.N())
		}
	}
}
