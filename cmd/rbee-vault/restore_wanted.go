package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// wantedBackup is the backup that a command was told to read.
type wantedBackup struct {
	name   string         // as openBackup takes it
	record *backup.Record // what the vault recorded about it, if it was chosen from there
}

// expect adds to the trust in a signer that what was opened is the backup that was asked for:
// the recorded one, or the one that its name says.
func (w wantedBackup) expect(opts backup.ReadOptions, opened openedBackup) backup.ReadOptions {
	trust := opts.Trust
	opts.Trust = func(ctx context.Context, c backup.Claim) error {
		if err := trust(ctx, c); err != nil {
			return err
		}
		if w.record != nil {
			return w.record.Check(c)
		}
		return backup.CheckName(cutVersion(opened.source), c)
	}
	return opts
}

// wanted returns the backup that the arguments or --at name.
func (o restoreOptions) wanted(ctx context.Context, a *app, args []string) (wantedBackup, error) {
	if o.at == "" {
		return wantedBackup{name: args[0]}, nil
	}
	at, err := parseMoment("at", o.at, a.now())
	if err != nil {
		return wantedBackup{}, err
	}
	cfg, err := a.config(ctx)
	if err != nil {
		return wantedBackup{}, err
	}
	var records []backup.Record
	err = a.withVaultInPlace(ctx, cfg, func(v *vault.Vault) (err error) {
		records, err = backup.List(ctx, v)
		return err
	})
	if err != nil {
		return wantedBackup{}, err
	}
	r, err := backup.NewestAt(records, at)
	if err != nil {
		return wantedBackup{}, withHint(err, "See what there is: rbee-vault backup list")
	}
	copies := r.Reachable()
	if len(copies) == 0 {
		return wantedBackup{}, withHint(fmt.Errorf("a copy of backup %d of %s: %w", r.Sequence, wire.FormatTime(r.Created), registry.ErrNotFound),
			"See where its copies were: rbee-vault backup list. For an older backup, give an earlier --at.")
	}
	name := copies[0].String()
	if copies[0].Target != "" {
		name = objectPath(copies[0].Target, backup.Object{Name: copies[0].Name, Version: copies[0].Version})
	}
	a.ui.info("Reading %s, backup %d of %s.", name, r.Sequence, wire.FormatTime(r.Created))
	return wantedBackup{name: name, record: &r}, nil
}

// auditRefusal records in the audit log of the vault in place that somebody tried to restore
// a backup that is damaged, not trusted, or another than it should be.
func (a *app) auditRefusal(ctx context.Context, cfg vault.Config, file string, err error) {
	for _, refused := range []error{backup.ErrUntrusted, backup.ErrSuccessor, backup.ErrDamaged, backup.ErrOtherBackup} {
		if errors.Is(err, refused) {
			a.auditRefusedRestore(ctx, cfg, file, err)
			return
		}
	}
}
