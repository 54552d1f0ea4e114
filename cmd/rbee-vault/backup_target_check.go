package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newBackupTargetCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check [NAME...]",
		Short: "Try whether targets take a backup, and keep it",
		Long: `Try targets, all of them by default. A small object, the probe, is written to each. A
second object of the same name must be refused. Under --retain, deleting the probe must be
refused too; only a credential that may delete can prove that.

The probe is locked for two minutes at most, and is deleted where the credential may.
Other backup commands leave it out.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runBackupTargetCheck(cmd.Context(), a, args) },
	}
}

type targetCheckJSON struct {
	Target           string           `json:"target"`
	OK               bool             `json:"ok"`
	Error            *string          `json:"error"`
	Exclusive        bool             `json:"exclusive"`
	Versions         bool             `json:"versions"`
	Lock             backup.LockState `json:"lock"`
	DefaultRetention *string          `json:"default_retention"`
	CanRead          bool             `json:"can_read"`
	CanList          bool             `json:"can_list"`
	CanDelete        bool             `json:"can_delete"`
	Probes           []string         `json:"probes"` // those that remain
}

func newTargetCheckJSON(t backup.Target, c backup.TargetCheck, err error) *targetCheckJSON {
	j := &targetCheckJSON{
		Target:           t.Name,
		OK:               err == nil,
		Exclusive:        c.Exclusive,
		Versions:         c.Versions,
		Lock:             c.Lock,
		DefaultRetention: wire.Nullable(c.DefaultRetention),
		CanRead:          c.CanRead,
		CanList:          c.CanList,
		CanDelete:        c.CanDelete,
		Probes:           notNil(c.Probes),
	}
	if err != nil {
		text := err.Error()
		j.Error = &text
	}
	return j
}

func runBackupTargetCheck(ctx context.Context, a *app, names []string) error {
	targets, stores, err := a.openTargets(ctx, names)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		a.ui.info("There are no targets yet. To add one: rbee-vault backup target add NAME URL")
		return nil
	}
	var failed []error
	for i, t := range targets {
		check, err := backup.CheckTarget(ctx, stores[i], a.confirmProbe)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("target %s: %w", t.Name, err))
		}
		if a.json {
			if err := a.ui.object(newTargetCheckJSON(t, check, err)); err != nil {
				return err
			}
			continue
		}
		if err == nil {
			a.showTargetCheck(t, check)
		}
	}
	if len(failed) == 0 || len(targets) == 1 {
		return errors.Join(failed...)
	}
	for _, err := range failed {
		a.ui.warn("%v", err)
		if h := failureHint(err); h != "" {
			a.ui.warn("  %s", h)
		}
	}
	return fmt.Errorf("%w: %d of %d targets do not take a backup as they should", errPartial, len(failed), len(targets))
}

// openTargets opens the stores of targets, of all without names. The vault is closed
// before anything goes over the network.
func (a *app) openTargets(ctx context.Context, names []string) (chosen []backup.Target, stores []backup.Store, err error) {
	err = a.withVault(ctx, func(v *vault.Vault) error {
		targets, err := backup.Targets(ctx, v)
		if err != nil {
			return err
		}
		known := map[string]backup.Target{}
		for _, t := range targets {
			known[t.Name] = t
			if len(names) == 0 {
				chosen = append(chosen, t)
			}
		}
		for _, name := range names {
			t, ok := known[name]
			if !ok {
				return fmt.Errorf("the target %s: %w", name, registry.ErrNotFound)
			}
			chosen = append(chosen, t)
		}
		for _, t := range chosen {
			store, err := backup.OpenTarget(ctx, v, t.Name)
			if err != nil {
				return err
			}
			stores = append(stores, store)
		}
		return nil
	})
	return chosen, stores, err
}

// confirmProbe asks about a probe that its bucket will lock.
func (a *app) confirmProbe(ctx context.Context, retention string) error {
	a.ui.warn("the bucket locks each new object by itself: %s. The probe, which is small, remains there for so long", retention)
	return a.ui.confirm(ctx, "Write it?")
}

// showTargetCheck prints what a check found out.
func (a *app) showTargetCheck(t backup.Target, c backup.TargetCheck) {
	if a.json {
		return
	}
	a.ui.printf("%s: ok\n", t.Name)
	if !c.Exclusive {
		a.ui.warn("target %s: an object there can be replaced (--no-conditional)", t.Name)
	}
	if t.Bucket() && !c.Versions {
		a.ui.warn("target %s: the bucket keeps no versions, so whoever has this credential can write over a backup", t.Name)
	}
	switch c.Lock {
	case backup.LockProven:
		a.ui.info("The lock is proven: this credential may delete, and a locked object was not deleted.")
	case backup.LockNotProven:
		a.ui.warn("target %s: lock not proven: this credential may not delete anything, so its refusal proves nothing. To prove it once, check with a credential that may delete", t.Name)
	}
	if more := rights(c); t.Bucket() && len(more) > 0 {
		a.ui.warn("target %s: the credential can also %s. Writing backups needs none of it: whoever takes this machine over can do the same", t.Name, strings.Join(more, ", "))
	}
	for _, probe := range c.Probes {
		a.ui.info("The probe %s remains there.", probe)
	}
}

// rights names what a credential can do besides writing.
func rights(c backup.TargetCheck) (more []string) {
	for _, right := range []struct {
		has  bool
		name string
	}{{c.CanRead, "read"}, {c.CanList, "list"}, {c.CanDelete, "delete"}} {
		if right.has {
			more = append(more, right.name)
		}
	}
	return more
}
