package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type pruneOptions struct {
	keep   backup.Keep
	within string
	target string
	dryRun bool
}

func (o *pruneOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&o.keep.Last, "keep-last", 0, "keep the newest `N`")
	f.IntVar(&o.keep.Daily, "keep-daily", 0, "keep the newest of each of the last `N` days that have one")
	f.IntVar(&o.keep.Weekly, "keep-weekly", 0, "keep the newest of each of the last `N` weeks that have one")
	f.IntVar(&o.keep.Monthly, "keep-monthly", 0, "keep the newest of each of the last `N` months that have one")
	f.StringVar(&o.within, "keep-within", "", "keep all that are at most this `AGE` older than the newest, such as 30d")
	f.StringVar(&o.target, "target", "", "prune only this target: its `NAME`, or its address, to prune it by the credential in the environment (default: every target and directory)")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be removed, and remove nothing")
}

func newBackupPrune(a *app) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove old backups, by rules",
		Long: `Remove the backups that no rule keeps, at each target and in each directory by itself.

Never removed: the newest at each place, the one whose restore was tried out last, and
what the vault has not recorded. Size and hash of each file are compared before it goes.
What a bucket still locks is skipped. The records stay.`,
		Example: `  rbee-vault backup prune --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runBackupPrune(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type prunedJSON struct {
	Sequence    int64              `json:"sequence"`
	Created     string             `json:"created"`
	Size        int64              `json:"size"`
	Target      *string            `json:"target"`
	Name        string             `json:"name"`
	Result      backup.PruneResult `json:"result"`
	LockedUntil *string            `json:"locked_until"`
	Failed      *string            `json:"failed"`
}

func newPrunedJSON(p backup.Pruned) prunedJSON {
	j := prunedJSON{
		Sequence:    p.Record.Sequence,
		Created:     wire.FormatTime(p.Record.Created),
		Size:        p.Record.Size,
		Target:      wire.Nullable(p.Copy.Target),
		Name:        p.Copy.Name,
		Result:      p.Result,
		LockedUntil: nullableTime(p.Copy.LockedUntil),
	}
	if p.Err != nil {
		j.Failed = wire.Nullable(p.Err.Error())
	}
	return j
}

func runBackupPrune(ctx context.Context, a *app, o pruneOptions) (err error) {
	opts := backup.PruneOptions{Keep: o.keep}
	if o.within != "" {
		if opts.Within, err = registry.ParseAge(o.within); err != nil {
			return fmt.Errorf("--keep-within: %w", err)
		}
	}
	if opts.Keep == (backup.Keep{}) {
		return usagef("which backups are to be kept? For example: --keep-last 30")
	}
	return a.withVault(ctx, func(v *vault.Vault) error {
		var err error
		if opts.Target, opts.Store, err = chooseTarget(ctx, v, o.target); err != nil {
			return err
		}
		plan, err := backup.PlanPrune(ctx, v, opts)
		if err != nil {
			return err
		}
		due := 0
		for _, p := range plan {
			if p.Result == backup.PruneDue {
				due++
			}
		}
		if due == 0 || o.dryRun {
			return a.showPruned(plan)
		}
		if !a.yes && a.interactive() {
			if err := a.showPruned(plan); err != nil {
				return err
			}
		}
		if err := a.ui.confirmMany(ctx, fmt.Sprintf("Remove %d copies for good?", due), due); err != nil {
			return err
		}
		done, err := backup.Prune(ctx, v, plan, opts)
		if e := a.showPruned(done); err == nil {
			err = e
		}
		for _, p := range done {
			if err == nil && p.Result == backup.PruneFailed {
				err = errPartial
			}
		}
		return err
	})
}

// chooseTarget finds the target that the operator named. By a bucket's address it is opened with
// the credential that this machine finds, in place of the vault's, which may only write.
func chooseTarget(ctx context.Context, v *vault.Vault, arg string) (name string, store backup.Store, err error) {
	if !isBucketURL(arg) {
		return arg, nil, nil
	}
	targets, err := backup.Targets(ctx, v)
	if err != nil {
		return "", nil, err
	}
	for _, t := range targets {
		if strings.TrimRight(t.URL, "/") == strings.TrimRight(arg, "/") {
			t.Profile, t.AccessKey = "", ""
			store, err = backup.OpenStore(ctx, t)
			return t.Name, store, err
		}
	}
	return "", nil, fmt.Errorf("%w: no target of the vault has the address %q", registry.ErrNotFound, arg)
}

// showPruned prints what is to become of copies, or what became of them.
func (a *app) showPruned(list []backup.Pruned) error {
	if a.json {
		return changedOf(a.ui, list, newPrunedJSON)
	}
	if len(list) == 0 {
		a.ui.info("There is nothing to remove.")
		return nil
	}
	t := newTable("SEQ", "AGE", "SIZE", "RESULT", "COPY")
	for _, p := range list {
		result := string(p.Result)
		if p.Result == backup.PruneLocked && !p.Copy.LockedUntil.IsZero() {
			result += " until " + wire.FormatTime(p.Copy.LockedUntil)
		}
		t.row(p.Record.Sequence, p.Record.Created, byteCount(p.Record.Size), result, p.Copy.String())
		if p.Err != nil {
			a.ui.warn("backup %d stays at %s: %v", p.Record.Sequence, p.Copy, p.Err)
		}
	}
	a.ui.table(t)
	return nil
}
