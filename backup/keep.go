package backup

import (
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Keep says which backups a place keeps, each rule by itself: what one of them keeps is kept. A
// day, week or month counts only if there is a backup of it, and of that the newest is kept.
// Days begin at midnight UTC, weeks on Monday.
type Keep struct {
	Last    int           // the newest
	Daily   int           // of the newest days
	Weekly  int           // of the newest weeks
	Monthly int           // of the newest months
	Within  time.Duration // all that are at most so much older than the newest
}

// validate refuses rules that keep nothing: an empty policy would remove everything.
func (k Keep) validate() error {
	if k.Last < 0 || k.Daily < 0 || k.Weekly < 0 || k.Monthly < 0 || k.Within < 0 {
		return fmt.Errorf("%w: a number of backups to keep is negative", vault.ErrInvalid)
	}
	if k == (Keep{}) {
		return fmt.Errorf("%w: nothing says which backups to keep", vault.ErrInvalid)
	}
	return nil
}

// choose returns which of the moments are kept. They are in order, newest first.
func (k Keep) choose(created []time.Time) []bool {
	kept := make([]bool, len(created))
	for i, t := range created {
		kept[i] = i < k.Last || k.Within > 0 && created[0].Sub(t) <= k.Within
	}
	for _, rule := range []struct {
		count  int
		period func(time.Time) string
	}{
		{k.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{k.Weekly, func(t time.Time) string { return fmt.Sprint(t.ISOWeek()) }},
		{k.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
	} {
		last, left := "", rule.count
		for i, t := range created {
			if period := rule.period(t.UTC()); period != last && left > 0 {
				kept[i], last = true, period
				left--
			}
		}
	}
	return kept
}
