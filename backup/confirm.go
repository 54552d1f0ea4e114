package backup

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Confirm reports whether a backup to opts would hold nothing new, and records that it was
// looked at: see [Record.AsOf]. So it is if the configuration is that of the newest backup,
// which all of opts.Recipients can open, and there is a copy of it in opts.Dir, or in each of
// opts.Targets, which is still locked for more than half of the target's retention. A place to
// which the last run could not write gets a new backup.
//
// A Path or a Writer gets a new backup always: the error matches [vault.ErrInvalid].
func Confirm(ctx context.Context, v *vault.Vault, opts CreateOptions) (last Record, confirmed bool, err error) {
	if opts.Dir == "" && len(opts.Targets) == 0 {
		return Record{}, false, fmt.Errorf("%w: only a directory or a target can have the backup already", vault.ErrInvalid)
	}
	if opts.Dir != "" {
		if opts.Dir, err = absolute(opts.Dir); err != nil {
			return Record{}, false, err
		}
	}
	records, err := List(ctx, v)
	if err != nil {
		return Record{}, false, err
	}
	newest := NewestRecord(records)
	if newest == nil || records[len(records)-1].failedAt(opts) {
		return Record{}, false, nil
	}
	last = *newest
	targets, err := Targets(ctx, v)
	if err != nil {
		return Record{}, false, err
	}
	for _, to := range opts.Recipients {
		if !slices.ContainsFunc(last.Recipients, func(r Recipient) bool { return r.Recipient == to }) {
			return last, false, nil
		}
	}
	err = v.Update(ctx, func(tx *vault.Tx) error {
		now, err := currentDigest(ctx, tx)
		if err != nil || now != last.Digest || !last.covers(opts, targets, tx.Now()) {
			return err
		}
		confirmed, last.Confirmed = true, tx.Now()
		return updateConfirmed(ctx, tx, last.Sequence)
	})
	if err != nil {
		return Record{}, false, fmt.Errorf("confirm backup %d: %w", last.Sequence, err)
	}
	return last, confirmed, nil
}

// failedAt reports whether the backup could not be written to one of the places of opts.
func (r Record) failedAt(opts CreateOptions) bool {
	return slices.ContainsFunc(r.Copies, func(c Copy) bool {
		return c.Failed != "" && (slices.Contains(opts.Targets, c.Target) || c.Target == "" && filepath.Dir(c.Name) == opts.Dir)
	})
}

// covers reports whether each place of opts has a copy that is good for some time.
func (r Record) covers(opts CreateOptions, targets []Target, now time.Time) bool {
	if opts.Dir != "" {
		return slices.ContainsFunc(r.Copies, func(c Copy) bool {
			return c.Target == "" && filepath.Dir(c.Name) == opts.Dir && r.State(c, false) == FilePresent
		})
	}
	for _, name := range opts.Targets {
		t := slices.IndexFunc(targets, func(t Target) bool { return t.Name == name })
		if t < 0 || !slices.ContainsFunc(r.Copies, func(c Copy) bool { return c.Target == name && r.lasts(c, targets[t], now) }) {
			return false
		}
	}
	return true
}

// lasts reports whether a copy in a target is there, as far as that is known without asking,
// and locked for more than half of the retention.
func (r Record) lasts(c Copy, t Target, now time.Time) bool {
	if !c.There() || t.Retain > 0 && c.LockedUntil.Sub(now) <= t.Retain/2 {
		return false
	}
	dir, ok := t.directory()
	if !ok {
		return true
	}
	c.Target, c.Name = "", filepath.Join(dir, c.Name)
	return r.State(c, false) == FilePresent
}

// MarkVerified records that a copy of a backup was read to its end and is good. known reports
// whether the vault has recorded that backup.
func MarkVerified(ctx context.Context, v *vault.Vault, sumsSHA256 string) (known bool, err error) {
	err = v.Update(ctx, func(tx *vault.Tx) error {
		known, err = updateVerified(ctx, tx, sumsSHA256)
		return err
	})
	return known, err
}
