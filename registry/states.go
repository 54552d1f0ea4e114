package registry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// State is the result of the last contact with a node.
type State struct {
	Node   string
	Status Status
	// LastConnected is the time of the contact. Zero: not known, the stored time stays.
	// A time earlier than the stored one is stored too, because clocks are corrected.
	LastConnected time.Time
	// Lag is how far the stored time may stay behind LastConnected while the status is
	// the same: not every heartbeat needs a write. 0: every new time is stored.
	Lag time.Duration
}

// stateOf returns the stored state of a node.
func stateOf(n Node) State {
	return State{Node: n.Name, Status: n.Status, LastConnected: n.LastConnected}
}

// StatesReport is what UpdateStates did.
type StatesReport struct {
	Written int      // how many stored states changed
	Missing []string // names without a node, sorted, each once
}

// UpdateStates stores the states of many nodes in one transaction. Where nothing
// changes, it writes nothing and takes no write lock, so it may be called at every
// heartbeat of a fleet. States are not audited. A status or time that is not valid is
// a *FieldError, and nothing is stored.
func (r *Registry) UpdateStates(ctx context.Context, states []State) (StatesReport, error) {
	for _, s := range states {
		if !s.Status.Valid() {
			return StatesReport{}, fmt.Errorf("update state of node %q: %w", s.Node, &FieldError{Field: "status", Rule: ruleStatus})
		}
		if !s.LastConnected.IsZero() && !validUnix(s.LastConnected.Unix()) {
			return StatesReport{}, fmt.Errorf("update state of node %q: %w", s.Node, &FieldError{Field: "last_connected_unix", Rule: ruleUnix})
		}
	}
	var report StatesReport
	var changes []State
	look := func(tx *vault.Tx) (err error) {
		changes, report.Missing, err = changedStates(ctx, tx, states)
		return err
	}
	err := r.v.View(ctx, look)
	if err == nil && len(changes) > 0 {
		err = r.v.Update(ctx, func(tx *vault.Tx) error {
			if err := look(tx); err != nil { // again: another writer may have come first
				return err
			}
			for _, s := range changes {
				if err := updateNodeState(ctx, tx, s); err != nil {
					return fmt.Errorf("node %q: %w", s.Node, err)
				}
			}
			return nil
		})
	}
	if err != nil {
		return StatesReport{}, fmt.Errorf("update states: %w", err)
	}
	report.Written = len(changes)
	return report, nil
}

// changedStates returns the states that must be written, and the names without a node.
func changedStates(ctx context.Context, tx *vault.Tx, states []State) (changes []State, missing []string, err error) {
	stored, err := selectStates(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range states {
		old, ok := stored[s.Node]
		if !ok {
			missing = append(missing, s.Node)
			continue
		}
		if s.LastConnected.IsZero() {
			s.LastConnected = old.LastConnected
		} else {
			s.LastConnected = time.Unix(s.LastConnected.Unix(), 0).UTC()
		}
		behind := s.LastConnected.Sub(old.LastConnected)
		if old.LastConnected.IsZero() && !s.LastConnected.IsZero() {
			behind = s.Lag + 1
		}
		if s.Status != old.Status || behind < 0 || behind > s.Lag {
			changes = append(changes, s)
			stored[s.Node] = s // a node may be given twice
		}
	}
	slices.Sort(missing)
	return changes, slices.Compact(missing), nil
}
