package backup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// The ages from which something is not as it should be.
const (
	DefaultMaxAge      = 30 * 24 * time.Hour // of the newest backup
	DefaultMaxUnproven = 90 * 24 * time.Hour // of the newest drill that worked
)

// HealthOptions says what is too old.
type HealthOptions struct {
	MaxAge      time.Duration // 0: DefaultMaxAge
	MaxUnproven time.Duration // 0: DefaultMaxUnproven
	Offline     bool          // ask no target
	Targets     []string      // that must have the newest backup; nil: every one
}

// ProblemKind names a problem for monitors. The names are promises.
type ProblemKind string

// The problems.
const (
	ProblemStale    ProblemKind = "stale"    // there is no backup, or the newest is too old
	ProblemFailing  ProblemKind = "failing"  // the last run did not write every copy
	ProblemMissing  ProblemKind = "missing"  // a copy of the newest backup is not where it should be
	ProblemUnproven ProblemKind = "unproven" // no drill worked, or that is too long ago
	ProblemDrill    ProblemKind = "drill"    // the last drill failed
)

// ProblemKinds are all of them.
var ProblemKinds = []ProblemKind{ProblemStale, ProblemFailing, ProblemMissing, ProblemUnproven, ProblemDrill}

// Problem is something that is not as it should be.
type Problem struct {
	Kind    ProblemKind `json:"kind"`
	Message string      `json:"message"`
}

// Health is the state of a vault's backups.
type Health struct {
	At       time.Time
	Last     *Record     // the newest; nil: there is none
	States   []FileState // of its copies, as far as their places say
	Drill    *Drill      // the last; nil: there was none
	Proven   time.Time   // when a drill of any backup last worked; zero: never
	Problems []Problem
}

// Has reports whether there is a problem of the kind.
func (h Health) Has(kind ProblemKind) bool {
	return slices.ContainsFunc(h.Problems, func(p Problem) bool { return p.Kind == kind })
}

func (h *Health) problem(kind ProblemKind, format string, args ...any) {
	h.Problems = append(h.Problems, Problem{kind, fmt.Sprintf(format, args...)})
}

// Examine looks at the vault's backups. It asks each target of the vault what is there, unless
// opts.Offline is set. A target that does not say counts as no problem: the vault may have no right to list it.
func Examine(ctx context.Context, v *vault.Vault, opts HealthOptions) (Health, error) {
	records, err := List(ctx, v)
	if err != nil {
		return Health{}, err
	}
	drills, err := Drills(ctx, v)
	if err != nil {
		return Health{}, err
	}
	targets, err := Targets(ctx, v)
	if err != nil {
		return Health{}, err
	}
	h := Health{Last: NewestRecord(records)}
	if err := v.View(ctx, func(tx *vault.Tx) error { h.At = tx.Now(); return nil }); err != nil {
		return Health{}, err
	}
	h.examineRuns(records, opts)
	if h.Last != nil {
		if err := h.examineCopies(ctx, v, targets, opts); err != nil {
			return Health{}, err
		}
		h.examineDrills(drills, opts)
	}
	return h, nil
}

func (h *Health) examineRuns(records []Record, opts HealthOptions) {
	maxAge := opts.MaxAge
	if maxAge == 0 {
		maxAge = DefaultMaxAge
	}
	switch {
	case h.Last == nil:
		h.problem(ProblemStale, "there is no backup yet")
	case h.At.Sub(h.Last.AsOf()) > maxAge:
		h.problem(ProblemStale, "the newest backup is of %s", h.Last.AsOf().Format(time.DateTime))
	}
	if len(records) == 0 {
		return
	}
	last := records[len(records)-1]
	for _, c := range last.Copies {
		if c.Failed != "" {
			h.problem(ProblemFailing, "backup %d was not written to %s: %s", last.Sequence, c, c.Failed)
		}
	}
}

// examineCopies looks for the copies of the newest backup.
func (h *Health) examineCopies(ctx context.Context, v *vault.Vault, targets []Target, opts HealthOptions) error {
	for _, c := range h.Last.Copies {
		state := h.Last.State(c, false)
		if state == FileRemote && !opts.Offline && slices.ContainsFunc(targets, func(t Target) bool { return t.Name == c.Target }) {
			found, err := Inventory(ctx, v, c.Target, nil)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			i := slices.IndexFunc(found, func(f Found) bool { return f.Name == c.Name && f.Version == c.Version })
			if err == nil && i >= 0 {
				state = found[i].State
			}
		}
		h.States = append(h.States, state)
		switch state {
		case FileMissing, FileChanged, FileUnreadable:
			h.problem(ProblemMissing, "backup %d at %s is %s", h.Last.Sequence, c, state)
		}
	}
	must := opts.Targets
	if must == nil {
		for _, t := range targets {
			must = append(must, t.Name)
		}
	}
	for _, name := range must {
		has := slices.ContainsFunc(h.Last.Copies, func(c Copy) bool { return c.Target == name && c.There() })
		if !has {
			h.problem(ProblemMissing, "the target %s has no copy of backup %d", name, h.Last.Sequence)
		}
	}
	return nil
}

func (h *Health) examineDrills(drills []Drill, opts HealthOptions) {
	maxUnproven := opts.MaxUnproven
	if maxUnproven == 0 {
		maxUnproven = DefaultMaxUnproven
	}
	for i, d := range drills {
		if d.Sequence == 0 {
			continue // another vault's backup
		}
		h.Drill = &drills[i]
		if d.Failed == "" {
			h.Proven = d.At
		}
	}
	switch {
	case h.Proven.IsZero():
		h.problem(ProblemUnproven, "no restore was ever tried out")
	case h.At.Sub(h.Proven) > maxUnproven:
		h.problem(ProblemUnproven, "the last restore that worked was tried out on %s", h.Proven.Format(time.DateOnly))
	}
	if h.Drill != nil && h.Drill.Failed != "" {
		h.problem(ProblemDrill, "the last drill, of backup %d on %s, failed: %s", h.Drill.Sequence, h.Drill.At.Format(time.DateOnly), h.Drill.Failed)
	}
}
