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
	f.BoolVar(&o.replace, "replace", false, "replace a vault in place: it is set aside")
	f.BoolVar(&o.noKeyring, "no-keyring", false, "do not store the new key in the OS keyring")
	f.BoolVar(&o.dryRun, "dry-run", false, "check the backup and report, without writing anything")
}

func newRestore(a *app) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Create a vault from a backup",
		Long: `Create a vault from a backup, at --db. The whole backup is verified before anything is put
in place. The vault gets a new id, a new key and a new signing
key. It keeps the recipients of the backup, so the same recovery identity opens it.

` + backupArgument + `

If there is a vault in place, nothing is restored. With --replace it is set aside as
.replaced-<time>, and still opens with --db and that name.`,
		Example: `  rbee-vault restore beehives-20260102T150405Z-000007.tar.gz.age --identity recovery.txt
  rbee-vault restore s3://fleet-backups/hive --region eu-central-1 --identity recovery.txt --signer SHA256:...`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runRestore(cmd.Context(), a, o, args[0]) },
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
		if err := rehearseRestore(ctx, cfg, o); err != nil {
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

// restore puts the backup in place. If the backup is damaged or not trusted, the audit log
// of the vault that it should have replaced records the attempt.
func restore(ctx context.Context, a *app, cfg vault.Config, o restoreOptions, file string) (backup.Restored, error) {
	if err := needIdentities(cfg.Identities); err != nil {
		return backup.Restored{}, err
	}
	r, err := o.openBackup(ctx, a, file)
	if err != nil {
		return backup.Restored{}, err
	}
	defer r.Close()
	read, err := o.build(ctx, a, cfg, o.replace)
	if err != nil {
		return backup.Restored{}, err
	}
	done, err := backup.Restore(ctx, cfg, r, backup.RestoreOptions{
		ReadOptions:     read,
		NoKeyring:       o.noKeyring,
		Replace:         o.replace,
		ConfirmUnproven: a.confirmUnproven,
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
This is a new vault with a new signer. Write the signer's fingerprint on the recovery
sheet, or keep a new sheet: rbee-vault status --sheet FILE`)
	a.showUnvouched(done.Slots, done.Signer)
}

// confirmUnproven asks about the recipients of a vault in place that nothing vouches for.
func (a *app) confirmUnproven(ctx context.Context, in vault.UnprovenVault) error {
	a.ui.warn("nothing vouches for the vault in place: %v", in.Cause)
	if in.Recipients == nil {
		a.ui.warn("its recipients are not known, so all recipients of the backup come back, even those that were removed later")
	} else {
		a.ui.warn("of the backup's recipients only these are kept, which its slots file names; anybody who can write that file could have changed them:")
		for _, s := range in.Recipients {
			a.ui.warn("  %s", slotText(s))
		}
	}
	if in.Lost {
		return a.ui.confirm(ctx, "Restore with these recipients?")
	}
	return a.ui.confirm(ctx, "Set it aside as it is, and put the backup in its place?")
}

// showUnvouched lists the unlock methods that do not vouch for the signer yet.
func (a *app) showUnvouched(slots []vault.Slot, signer string) {
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
These unlock methods have not vouched for the signer yet. Each of them asks once, at its
first use, or vouches with the command below. A service cannot be asked, so run the
command for its credential first.
%s

  rbee-vault status --identity FILE --signer %s`, strings.Join(unvouched, "\n"), vault.Fingerprint(signer))
}

func restoreHint(err error) error {
	switch {
	case errors.Is(err, vault.ErrExists):
		return withHint(err, "Nothing was changed. Replace that vault with --replace (it is set aside), or restore to another path with --db PATH.")
	case noKeyringHere(err):
		return withHint(err, "Nothing was restored. On a machine without a keyring, restore to a vault that opens with an identity only: --no-keyring")
	}
	return err
}

// rehearseRestore returns the error that would stop a restore before it reads the backup.
// It writes nothing.
func rehearseRestore(ctx context.Context, cfg vault.Config, o restoreOptions) error {
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
		// Look up an account that does not exist, to see whether the keyring answers.
		if _, err := cfg.Keyring.Get(ctx, rand.Text()); err != nil && !errors.Is(err, keyring.ErrNotFound) {
			return err
		}
	}
	return nil
}

// auditRefusedRestore records in the audit log of the vault in place that somebody tried
// to replace it with a bad backup. A vault that does not open records nothing.
func (a *app) auditRefusedRestore(ctx context.Context, cfg vault.Config, file string, reason error) {
	v, err := vault.Open(ctx, cfg)
	if err == nil {
		err = v.Update(ctx, func(tx *vault.Tx) error {
			return tx.Audit(ctx, vault.Event{Action: vault.ActionRefuseRestore, Subject: file, Detail: reason.Error()})
		})
		v.Close()
	}
	if err != nil {
		a.ui.logger().Debug("the refused restore is not in the audit log", "reason", err)
	}
}
