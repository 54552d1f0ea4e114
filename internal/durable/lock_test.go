package durable_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// within is a deadline for a lock.
func within(t *testing.T, wait time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	return ctx
}

func TestLockBetweenProcesses(t *testing.T) {
	for _, test := range []struct {
		theirs, ours string
		free         bool
	}{
		{"exclusive", "exclusive", false},
		{"exclusive", "shared", false},
		{"shared", "exclusive", false},
		{"shared", "shared", true},
	} {
		t.Run(test.theirs+", then "+test.ours, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			them := holdElsewhere(t, path, test.theirs)
			lock := durable.NewLock(path)
			take := lock.Exclusive
			if test.ours == "shared" {
				take = lock.Shared
			}
			wait := 20 * time.Millisecond
			if test.free {
				wait = 30 * time.Second
			}
			err := take(within(t, wait))
			if test.free {
				if err != nil {
					t.Fatal(err)
				}
				if err := lock.Unlock(); err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, durable.ErrLocked) {
				t.Fatalf("%v, want ErrLocked", err)
			}
			if ok, err := durable.NewLock(path).TryExclusive(); ok || err != nil {
				t.Errorf("an attempt beside it: %t, %v", ok, err)
			}
			holders := durable.Holders(path)
			if len(holders) != 1 || holders[0].PID != them.cmd.Process.Pid || holders[0].Program == "" {
				t.Errorf("holders %v, want pid %d", holders, them.cmd.Process.Pid)
			}
			canceled, cancel := context.WithCancel(t.Context())
			cancel()
			if err := take(canceled); !test.free && !errors.Is(err, context.Canceled) {
				t.Errorf("canceled: %v", err)
			} else if err == nil {
				lock.Unlock()
			}
			them.kill() // the system releases a dead process's lock
			if err := take(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ok, err := lock.TryExclusive(); ok || err != nil {
				t.Errorf("an attempt of another goroutine: %t, %v", ok, err)
			}
			if err := lock.Unlock(); err != nil {
				t.Error(err)
			}
			if ok, err := lock.TryExclusive(); !ok || err != nil {
				t.Errorf("an attempt when it is free: %t, %v", ok, err)
			} else if err := lock.Unlock(); err != nil {
				t.Error(err)
			}
			if holders := durable.Holders(path); len(holders) != 0 {
				t.Errorf("afterwards: holders %v", holders)
			}
		})
	}
}

// TestLockWaits: a waiter gets the lock when the other process releases it.
func TestLockWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	them := holdElsewhere(t, path, "exclusive")
	lock := durable.NewLock(path)
	got := make(chan error)
	go func() { got <- lock.Exclusive(context.Background()) }()
	select {
	case err := <-got:
		t.Fatalf("got it beside the other: %v", err)
	default:
	}
	them.release()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if err := lock.Unlock(); err != nil {
		t.Error(err)
	}
}

// TestLockAdmitsOneGoroutine: flock alone would admit all of them.
func TestLockAdmitsOneGoroutine(t *testing.T) {
	lock := durable.NewLock(filepath.Join(t.TempDir(), "lock"))
	if err := lock.Exclusive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := lock.Exclusive(within(t, 20*time.Millisecond)); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second: %v, want ErrLocked", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	inside, total := 0, 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := lock.Exclusive(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if inside++; inside != 1 {
					t.Errorf("%d inside", inside)
				}
				total++
				inside--
				if err := lock.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if total != 400 {
		t.Errorf("%d turns, want 400", total)
	}
}

func TestLockFile(t *testing.T) {
	dir := t.TempDir()
	lock := durable.NewLock(filepath.Join(dir, "lock"))
	if _, err := os.Stat(lock.Path()); err == nil {
		t.Error("there is a file before it is locked")
	}
	if err := lock.Shared(t.Context()); err != nil {
		t.Fatal(err)
	}
	lock.Unlock()
	if info, err := os.Stat(lock.Path()); err != nil || info.Mode() != 0o600 || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
	absent := durable.NewLock(filepath.Join(dir, "absent", "lock"))
	if err := absent.Exclusive(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want fs.ErrNotExist", err)
	}
	// After a failed attempt, the lock can be tried again.
	os.Mkdir(filepath.Join(dir, "absent"), 0o700)
	if err := absent.Exclusive(t.Context()); err != nil {
		t.Fatal(err)
	}
	absent.Unlock()
}

func TestHolders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if holders := durable.Holders(path); holders != nil {
		t.Errorf("of no file: %v", holders)
	}
	lock := durable.NewLock(path)
	if err := lock.Shared(t.Context()); err != nil {
		t.Fatal(err)
	}
	if holders := durable.Holders(path); len(holders) != 0 {
		t.Errorf("oneself: %v", holders)
	}
	a, b := holdElsewhere(t, path, "shared"), holdElsewhere(t, path, "shared")
	pids := map[int]bool{}
	for _, h := range durable.Holders(path) {
		pids[h.PID] = true
	}
	if len(pids) != 2 || !pids[a.cmd.Process.Pid] || !pids[b.cmd.Process.Pid] {
		t.Errorf("holders %v", pids)
	}
	lock.Unlock()
	for h, want := range map[durable.Holder]string{
		{PID: 7}:                        "pid 7",
		{PID: 7, Program: "queen-rbee"}: "queen-rbee (pid 7)",
	} {
		if h.String() != want {
			t.Errorf("%q, want %q", h, want)
		}
	}
}
