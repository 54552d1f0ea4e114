// Package faulttest injects faults into the steps by which a program makes something durable.
// Each call of the file system or the keyring is a step. A test counts the steps in a run
// without faults. Then it runs again for each step, and that step fails, or the process is
// killed at it, before or after the step takes effect.
package faulttest

import (
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
)

// Fault is what happens at the chosen step.
type Fault string

// The faults. A kill is SIGKILL of this very process, so it is for child processes.
const (
	FailBefore  Fault = "fail before"  // the call has no effect
	FailAfter   Fault = "fail after"   // the call has its effect, but returns an error
	FailOnwards Fault = "fail onwards" // this step and all later ones: a full disk stays full
	KillBefore  Fault = "kill before"
	KillAfter   Fault = "kill after"
)

// The power cuts. Each happens before its step, or after the last step by [Steps.End], and ends
// the process. They need [Steps.Disk].
const (
	CutAll  Fault = "cut, all lost"      // only what was flushed reached the disk
	CutSome Fault = "cut, some lost"     // also the first half of the name changes, and half of each content
	CutLast Fault = "cut, the last kept" // also the last name change, with the earlier ones of its file
)

// Cuts are the power cuts.
var Cuts = []Fault{CutAll, CutSome, CutLast}

// Faults are all of them.
var Faults = []Fault{FailBefore, FailAfter, FailOnwards, KillBefore, KillAfter}

// Kills reports whether the fault kills the process.
func (b Fault) Kills() bool { return b == KillBefore || b == KillAfter }

// ErrFault is the error of a step that fails on purpose.
var ErrFault = errors.New("injected fault")

// Steps counts steps and injects a fault at one of them. The zero value injects none. It is
// safe for concurrent use.
type Steps struct {
	At    int // the step with the fault, from 1; 0: none
	Fault Fault
	Disk  *Disk // the file system, if the power is to be cut; nil: the real one

	mu        sync.Mutex
	names     []string
	faultStep string
	unsafe    []bool // by step: whether a power cut before it would lose anything
}

// N returns the number of steps so far.
func (s *Steps) N() int { return len(s.Names()) }

// Names returns the names of the steps so far. Step n has the index n-1.
func (s *Steps) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.names)
}

// FaultStep returns the name of the step with the fault, or "".
func (s *Steps) FaultStep() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faultStep
}

// Do makes a call as one step. If the call itself fails, its error is returned instead of the
// injected one.
func (s *Steps) Do(name string, call func() error) error {
	switch s.next(name) {
	case FailBefore, FailOnwards:
		return ErrFault
	case FailAfter:
		if err := call(); err != nil {
			return err
		}
		return ErrFault
	case KillBefore:
		s.save()
		kill()
	case KillAfter:
		call()
		s.save()
		kill()
	case CutAll, CutSome, CutLast:
		s.cut()
	}
	return call()
}

// next counts a step and returns the fault for it, or "".
func (s *Steps) next(name string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
	n := len(s.names)
	s.unsafe = append(s.unsafe, s.Disk != nil && s.Disk.Unflushed())
	if s.At == 0 || n < s.At || (n > s.At && s.Fault != FailOnwards) {
		return ""
	}
	if n == s.At {
		s.faultStep = name
	}
	return s.Fault
}

// Unsafe reports whether a power cut before the step would have lost anything. The step after
// the last one is the end.
func (s *Steps) Unsafe(at int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at > len(s.unsafe) {
		return s.Disk.Unflushed()
	}
	return s.unsafe[at-1]
}

// End cuts the power after the last step, if the fault is a power cut.
func (s *Steps) End() {
	if s.Disk != nil && s.At > s.N() {
		s.cut()
	}
}

// save stores what was not flushed for the process after a kill.
func (s *Steps) save() {
	if s.Disk != nil {
		s.Disk.Save()
	}
}

func (s *Steps) cut() {
	s.Disk.Cut(s.Fault)
	kill()
}

func kill() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal arrives
}
