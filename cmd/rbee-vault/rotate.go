package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/vault"
)

type rotateOptions struct {
	dryRun bool
	backup bool
	sheet  string
}

func (o *rotateOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "check that a rotation can work, and change nothing")
	f.StringVar(&o.sheet, "sheet", "", "write a sheet that names the new signer to the new `FILE`")
	f.BoolVar(&o.backup, "backup", false, "make a backup after the rotation")
}

func newRotate(a *app) *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Give the vault a new key",
		Long: `Give the vault a new key. Every row is encrypted again, every SSH key is sealed again,
and every slot and the OS keyring get the new key. After that the old key opens only
older copies. A rotation needs no secret except the one that opens the vault.

No other process may have the vault open. If one has, it is named, and the rotation
waits for it (--wait). A rotation may be interrupted at any time: the vault then has its
old key or its new key, and every unlock method works.

Rotate when somebody must lose access, and every year or two.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runRotate(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type rotateJSON struct {
	DryRun     bool         `json:"dry_run"`
	Generation int64        `json:"generation"`
	KeyID      *string      `json:"key_id"`
	Previous   string       `json:"previous_key_id"`
	Keyring    bool         `json:"keyring"`
	Signer     *signerJSON  `json:"signer"`
	Slots      []vault.Slot `json:"slots"`
}

func runRotate(ctx context.Context, a *app, o rotateOptions) error {
	if o.dryRun {
		a.acceptRollback = false // accepting it would write to the vault
		return a.withVault(ctx, func(v *vault.Vault) error { return a.rehearseRotation(ctx, v) })
	}
	return a.withVault(ctx, func(v *vault.Vault) error {
		sheet, err := newSheet(o.sheet)
		if err != nil {
			return err
		}
		if err := a.rotate(ctx, v); err != nil {
			return err
		}
		if err := sheet.write(ctx, a, v); err != nil {
			return fmt.Errorf("the key was changed, but the sheet could not be written: %w", err)
		}
		return a.backupRotated(ctx, v, o.backup)
	})
}

// rehearseRotation checks what can be checked without changing anything.
func (a *app) rehearseRotation(ctx context.Context, v *vault.Vault) error {
	if err := v.CheckPages(ctx); err != nil {
		return err
	}
	plan, err := v.PlanRotation(ctx)
	if err != nil {
		return rotateHint(err)
	}
	if err := a.showRotated(plan, true); err != nil {
		return err
	}
	a.ui.info("Nothing was changed: this was a dry run. A rotation would give the vault this generation of its key.")
	return nil
}

// backupRotated makes the first backup with the new key, if the flag or the operator wants
// one.
func (a *app) backupRotated(ctx context.Context, v *vault.Vault, wanted bool) error {
	if !wanted && a.interactive() && !a.yes && !a.json {
		err := a.ui.confirm(ctx, "The old backups can still be read. Make a new backup now?")
		if err != nil && !errors.Is(err, errDeclined) {
			return err
		}
		wanted = err == nil
	}
	if !wanted {
		a.ui.info("Make a new backup: rbee-vault backup")
		return nil
	}
	if _, err := a.backup(ctx, v, backupOptions{}); err != nil {
		return fmt.Errorf("the key was changed, but the backup failed: %w", err)
	}
	return nil
}

// rotate rotates the open vault and prints the result.
func (a *app) rotate(ctx context.Context, v *vault.Vault) error {
	done, err := v.Rotate(ctx)
	if err != nil {
		return rotateHint(err)
	}
	return a.showRotated(done, false)
}

func (a *app) showRotated(r vault.Rotated, dryRun bool) error {
	if a.json {
		j := rotateJSON{DryRun: dryRun, Generation: r.Generation, Previous: r.Previous.String(), Keyring: r.Keyring, Slots: r.Slots}
		if !dryRun {
			id, signer := r.KeyID.String(), newSignerJSON(r.Signer)
			j.KeyID, j.Signer = &id, &signer
		}
		return a.ui.object(j)
	}
	pairs := [][2]string{{"generation", strconv.FormatInt(r.Generation, 10)}}
	if !dryRun {
		pairs = append(pairs, [2]string{"key id", r.KeyID.String()}, [2]string{"signer", vault.Fingerprint(r.Signer)})
	}
	a.ui.pairs(append(pairs, [2]string{"opens by", vault.UnlockMethods(r.Slots, r.Keyring)}))
	if !dryRun {
		a.ui.info(`
The vault has a new signer. Write the signer's fingerprint on the recovery sheet, or
keep a new sheet: rbee-vault status --sheet FILE
Anybody who could read the vault before knows the old signing key, and can sign vaults
and backups with it. Sheets and files that name the old signer do not protect against
that. If somebody lost access, make new service credentials too.`)
	}
	return nil
}

// rotateHint adds the next step after a failed rotation.
func rotateHint(err error) error {
	switch {
	case errors.Is(err, vault.ErrLocked):
		return withHint(err, "Stop that process first, or wait longer for it: --wait 1m. A program that links the library can rotate the vault itself.")
	case classify(err).code == exitKeyring:
		return withHint(err, "The keyring must store the new key, as it stored the old one. If the keyring is lost for good: rbee-vault slot remove keyring --identity FILE, then rotate")
	}
	return err
}
