package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// ActionPrune is the audit log's action of copies that are about to be removed from a place. Its
// subject is the place, its detail their sequences.
const ActionPrune vault.UrgentAction = "backup.prune"

// PruneOptions says which copies of backups are removed.
type PruneOptions struct {
	Keep
	Target string // only in this target; "": everywhere
	// Store is Target's, opened by another credential than the vault's. Nil: the vault's.
	Store Store

	store func(Store) Store // wraps each place's store in tests; nil: no
}

// PruneResult says what became of a copy.
type PruneResult string

// The results.
const (
	PruneDue     PruneResult = "due"     // it is to be removed
	PruneRemoved PruneResult = "removed" // it is removed
	PruneGone    PruneResult = "gone"    // somebody had removed it; this is recorded now
	PruneLocked  PruneResult = "locked"  // its store does not delete it yet
	PruneFailed  PruneResult = "failed"  // it stays, see Err
)

// Pruned is a copy that no rule keeps.
type Pruned struct {
	Record Record
	Copy   Copy
	Result PruneResult
	Err    error // of PruneFailed
}

// PlanPrune returns the copies that no rule keeps, oldest first at each place. A place is a
// target, or a directory with files. Never among them: the newest backup of a place, the backup
// of the last drill that worked, and what the vault has not recorded. A copy that its store does
// not delete yet is [PruneLocked].
func PlanPrune(ctx context.Context, v *vault.Vault, opts PruneOptions) ([]Pruned, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	records, err := List(ctx, v)
	if err != nil {
		return nil, err
	}
	if opts.Target != "" {
		if _, err := OpenTarget(ctx, v, opts.Target); err != nil {
			return nil, err
		}
	}
	var now time.Time
	if err := v.View(ctx, func(tx *vault.Tx) error { now = tx.Now(); return nil }); err != nil {
		return nil, err
	}
	proven := LastProven(records)
	var plan []Pruned
	for _, copies := range byPlace(records) {
		if opts.Target != "" && copies[0].Copy.Target != opts.Target {
			continue
		}
		slices.Reverse(copies) // newest first
		var created []time.Time
		for _, c := range copies {
			created = append(created, c.Record.Created)
		}
		kept := opts.choose(created)
		for i := len(copies) - 1; i > 0; i-- { // never the newest
			if kept[i] || proven != nil && copies[i].Record.Sequence == proven.Sequence {
				continue
			}
			if copies[i].Result = PruneDue; copies[i].Copy.LockedUntil.After(now) {
				copies[i].Result = PruneLocked
			}
			plan = append(plan, copies[i])
		}
	}
	return plan, nil
}

// place names where a copy is: the target, or the directory of a file.
func (c Copy) place() string {
	if c.Target != "" {
		return c.Target
	}
	return filepath.Dir(c.Name)
}

// byPlace returns the copies that are there, oldest first at each place.
func byPlace(records []Record) [][]Pruned {
	var places [][]Pruned
	index := map[[2]string]int{}
	for _, r := range records {
		for _, c := range r.Copies {
			if !r.Completed() || !c.There() || c.Target == "" && c.Name == "-" {
				continue
			}
			key := [2]string{c.Target, c.place()}
			i, ok := index[key]
			if !ok {
				i = len(places)
				index[key], places = i, append(places, nil)
			}
			places[i] = append(places[i], Pruned{Record: r, Copy: c})
		}
	}
	return places
}

// Prune removes the copies of a plan, and records that. Before anything is removed from a place,
// the newest copy there is read and compared with its record; each other copy is compared before
// it is removed. The results are those of the plan's copies. The error is the vault's.
//
// The order at each place: commit the audit row, remove, record what is gone. After a kill in
// between, the next run finds the copies removed, and records that.
func Prune(ctx context.Context, v *vault.Vault, plan []Pruned, opts PruneOptions) ([]Pruned, error) {
	records, err := List(ctx, v)
	if err != nil {
		return plan, err
	}
	plan = slices.Clone(plan)
	proven := LastProven(records) // perhaps since the plan was made
	for _, copies := range byPlace(records) {
		newest := copies[len(copies)-1]
		var here []*Pruned
		for i := range plan {
			c := plan[i].Copy
			if plan[i].Result == PruneDue && plan[i].Record.Sequence != newest.Record.Sequence && (proven == nil || plan[i].Record.Sequence != proven.Sequence) && c.Target == newest.Copy.Target && c.place() == newest.Copy.place() {
				here = append(here, &plan[i])
			}
		}
		if len(here) == 0 {
			continue
		}
		if err := prunePlace(ctx, v, newest, here, opts); err != nil {
			return plan, err
		}
	}
	return plan, nil
}

// prunePlace removes copies from one place.
func prunePlace(ctx context.Context, v *vault.Vault, newest Pruned, here []*Pruned, opts PruneOptions) error {
	store, err := opts.Store, error(nil)
	if store == nil {
		store, err = openPlace(ctx, v, newest.Copy)
	}
	if err == nil && opts.store != nil {
		store = opts.store(store)
	}
	if err == nil {
		err = newest.compare(ctx, store)
	}
	if err != nil {
		for _, p := range here {
			p.Result, p.Err = PruneFailed, fmt.Errorf("nothing is removed from %s: the newest backup there, %d: %w", newest.Copy.place(), newest.Record.Sequence, err)
		}
		return ctx.Err()
	}
	var sequences []string
	for _, p := range here {
		sequences = append(sequences, fmt.Sprint(p.Record.Sequence))
	}
	err = v.Update(ctx, func(tx *vault.Tx) error {
		return tx.Audit(ctx, vault.Event{Action: ActionPrune, Subject: newest.Copy.place(), Detail: strings.Join(sequences, " ")})
	})
	if err != nil {
		return fmt.Errorf("record what is to be removed: %w", err)
	}
	for _, p := range here {
		p.remove(ctx, store)
	}
	if err := recordGone(context.WithoutCancel(ctx), v, here); err != nil {
		return fmt.Errorf("record what was removed: %w", err)
	}
	return ctx.Err()
}

// recordGone records which of the copies are gone.
func recordGone(ctx context.Context, v *vault.Vault, copies []*Pruned) error {
	return v.Update(ctx, func(tx *vault.Tx) error {
		for _, p := range copies {
			if p.Result != PruneRemoved && p.Result != PruneGone {
				continue
			}
			p.Copy.Gone = tx.Now()
			if err := updateCopy(ctx, tx, p.Record.Sequence, p.Copy); err != nil {
				return err
			}
		}
		return nil
	})
}

// openPlace opens the store that holds a copy.
func openPlace(ctx context.Context, v *vault.Vault, c Copy) (Store, error) {
	if c.Target != "" {
		return OpenTarget(ctx, v, c.Target)
	}
	return dirStore{filepath.Dir(c.Name)}, nil
}

// name is the copy's name in its store.
func (c Copy) name() string {
	if c.Target != "" {
		return c.Name
	}
	return filepath.Base(c.Name)
}

// compare reads the copy, and compares it with the record.
func (p Pruned) compare(ctx context.Context, store Store) error {
	r, err := store.Open(ctx, p.Copy.name(), p.Copy.Version)
	if err != nil {
		return err
	}
	defer r.Close()
	h := sha256.New()
	// One byte more than there should be gives another hash.
	if _, err := io.Copy(h, io.LimitReader(contextReader{ctx, r}, p.Record.Size+1)); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != p.Record.SHA256 {
		return fmt.Errorf("%w: it is not what was recorded", vault.ErrDamaged)
	}
	return nil
}

// remove removes the copy if it is what was recorded.
func (p *Pruned) remove(ctx context.Context, store Store) {
	err := p.compare(ctx, store)
	if err == nil {
		err = store.Remove(ctx, p.Copy.name(), p.Copy.Version)
	}
	switch {
	case err == nil:
		p.Result = PruneRemoved
	case errors.Is(err, registry.ErrNotFound):
		p.Result = PruneGone
	case errors.Is(err, ErrLocked):
		p.Result = PruneLocked
	default:
		p.Result, p.Err = PruneFailed, err
	}
}
