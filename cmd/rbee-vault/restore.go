package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type restoreOptions struct {
	readOptions
	replace   bool
	noKeyring bool
	dryRun    bool
}

func (o *restoreOptions) register(cmd *cobra.Command) {
	o.readOptions.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.replace, "replace", false, "set a vault in place aside")
	f.BoolVar(&o.noKeyring, "no-keyring", false, "keep the new key out of the OS keyring")
	f.BoolVar(&o.dryRun, "dry-run", false, "verify and report, write nothing")
}

func newRestore(a *app) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a vault of a backup",
		Long: `Make a vault of a backup, at --db. FILE may be '-'. Everything is verified before
anything is put in place. The vault gets an id, a key and a signing key of its own,
and keeps the backup's recipients, so the same recovery identity opens it.

A vault in place is refused, or with --replace set aside as .replaced-<time>: it
still opens, by --db and that name.`,
		Example: `  rbee-vault restore beehives-20260102T150405Z-000007.tar.gz.age --identity recovery.txt`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runRestore(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	return cmd
}

type restoreJSON struct {
	Path     string          `json:"path"`
	VaultID  string          `json:"vault_id"`
	KeyID    string          `json:"key_id"`
	Keyring  bool            `json:"keyring"`
	Signer   signerJSON      `json:"signer"`
	Slots    []vault.Slot    `json:"slots"`
	LeftOut  []vault.Slot    `json:"left_out"`
	Replaced *string         `json:"replaced"`
	Manifest backup.Manifest `json:"manifest"`
}

func runRestore(ctx context.Context, a *app, o restoreOptions, file string) error {
	cfg, err := a.config(ctx)
	if err != nil {
		return err
	}
	if o.dryRun {
		if err := rehearseRestore(ctx, a, cfg, o); err != nil {
			return restoreHint(err)
		}
		return verifyBackup(ctx, a, o.readOptions, file, o.replace)
	}
	done, err := restore(ctx, a, cfg, o, file)
	if err != nil {
		return restoreHint(err)
	}
	if a.json {
		return a.ui.object(newRestoreJSON(done, o))
	}
	a.showRestored(done)
	return nil
}

// restore puts the backup in place. A backup that is refused as damaged or untrusted is
// noted in the log of the vault that it should have replaced.
func restore(ctx context.Context, a *app, cfg vault.Config, o restoreOptions, file string) (backup.Restored, error) {
	if err := needIdentities(cfg.Identities); err != nil {
		return backup.Restored{}, err
	}
	r, err := a.openBackup(ctx, file)
	if err != nil {
		return backup.Restored{}, err
	}
	defer r.Close()
	read, err := o.build(ctx, a, cfg, o.replace)
	if err != nil {
		return backup.Restored{}, err
	}
	done, err := backup.Restore(ctx, cfg, r, backup.RestoreOptions{
		ReadOptions:    read,
		NoKeyring:      o.noKeyring,
		Replace:        o.replace,
		ConfirmInPlace: a.confirmInPlace,
	})
	if o.replace && (errors.Is(err, backup.ErrUntrusted) || errors.Is(err, backup.ErrDamaged)) {
		a.auditRefusedRestore(ctx, cfg, file, err)
	}
	return done, err
}

func newRestoreJSON(done backup.Restored, o restoreOptions) restoreJSON {
	return restoreJSON{
		Path:     done.Path,
		VaultID:  done.VaultID,
		KeyID:    done.KeyID.String(),
		Keyring:  !o.noKeyring,
		Signer:   newSignerJSON(done.Signer),
		Slots:    done.Slots,
		LeftOut:  notNil(done.LeftOut),
		Replaced: wire.Nullable(done.Aside),
		Manifest: done.Manifest,
	}
}

func (a *app) showRestored(done backup.Restored) {
	pairs := [][2]string{
		{"vault", done.Path},
		{"vault id", done.VaultID},
		{"signer", vault.Fingerprint(done.Signer)},
		{"restored", fmt.Sprintf("backup %d of vault %s: %s", done.Manifest.Sequence, done.Manifest.VaultID, countsText(done.Manifest.Counts))},
	}
	for _, s := range done.Slots {
		pairs = append(pairs, [2]string{"opens by", slotText(s)})
	}
	for _, s := range done.LeftOut {
		pairs = append(pairs, [2]string{"left out", slotText(s)})
	}
	if done.Aside != "" {
		pairs = append(pairs, [2]string{"set aside", done.Aside})
	}
	a.ui.pairs(pairs)
	a.ui.info(`
This is a new vault with a signer of its own: write its fingerprint on the recovery
sheet, or keep the page that this writes: rbee-vault status --sheet FILE`)
	a.tellUnvouched(done.Slots, done.Signer)
}

// confirmInPlace asks about recipients that nothing vouches for.
func (a *app) confirmInPlace(ctx context.Context, in vault.InPlace) error {
	a.ui.warn("nothing vouches for what is in place: %v", in.Cause)
	if in.Recipients == nil {
		a.ui.warn("its recipients are not known, so all of the backup's come back, also those that were removed since")
	} else {
		a.ui.warn("of the backup's recipients only these are kept, which its slots file names; who can write that file could have changed them:")
		for _, s := range in.Recipients {
			a.ui.warn("  %s", slotText(s))
		}
	}
	if in.Lost {
		return a.ui.confirm(ctx, "Restore with these recipients?")
	}
	return a.ui.confirm(ctx, "Set it aside as it is, and put the backup in its place?")
}

// tellUnvouched names the unlock methods whose first use is asked about, for nothing of
// theirs vouches for the signer yet.
func (a *app) tellUnvouched(slots []vault.Slot, signer string) {
	var unvouched []string
	for _, s := range slots {
		if !s.Vouched() {
			unvouched = append(unvouched, "  "+slotText(s))
		}
	}
	if unvouched == nil {
		return
	}
	a.ui.info(`
These have not vouched for the signer yet. Each is asked once, or vouches by this line;
a service's credential first, for it cannot be asked:
%s

  rbee-vault status --identity FILE --signer %s`, strings.Join(unvouched, "\n"), vault.Fingerprint(signer))
}

func restoreHint(err error) error {
	switch {
	case errors.Is(err, vault.ErrExists):
		return withHint(err, "Nothing was touched. Replace it (it is set aside) with --replace, or restore elsewhere with --db PATH.")
	case noKeyringHere(err):
		return withHint(err, "Nothing was restored. On a machine without a keyring, restore to a vault that opens by identity alone: --no-keyring")
	}
	return err
}

// rehearseRestore looks for what would stop a restore before it reads the backup, and
// gives that error. It writes nothing.
func rehearseRestore(ctx context.Context, a *app, cfg vault.Config, o restoreOptions) error {
	if err := needIdentities(cfg.Identities); err != nil {
		return err
	}
	_, err := os.Lstat(cfg.Path)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if exists && !o.replace {
		return fmt.Errorf("%q %w", cfg.Path, vault.ErrExists)
	}
	if !o.noKeyring {
		// An account that nobody has: whether the keyring answers at all.
		if _, err := cfg.Keyring.Get(ctx, rand.Text()); err != nil && !errors.Is(err, keyring.ErrNotFound) {
			return err
		}
	}
	return nil
}

// auditRefusedRestore puts into the log of the vault in place, where that opens,
// that somebody tried to replace it by a backup that was not accepted.
func (a *app) auditRefusedRestore(ctx context.Context, cfg vault.Config, file string, reason error) {
	v, err := vault.Open(ctx, cfg)
	if err == nil {
		err = v.Update(ctx, func(tx *vault.Tx) error {
			return tx.Audit(ctx, vault.Event{Action: "vault.restore-refused", Subject: file, Detail: reason.Error()})
		})
		v.Close()
	}
	if err != nil {
		a.ui.logger().Debug("the refused restore is not in the audit log", "reason", err)
	}
}
