package main

import (
	"context"
	"errors"
	"fmt"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type restoreOptions struct {
	readOptions
	partOptions
	at        string
	replace   bool
	noKeyring bool
	dryRun    bool
	sheet     bool
}

func (o *restoreOptions) register(cmd *cobra.Command) {
	o.readOptions.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.replace, "replace", false, "replace a vault in place: it is set aside")
	f.BoolVar(&o.noKeyring, "no-keyring", false, "do not store the new key in the OS keyring")
	f.BoolVar(&o.dryRun, "dry-run", false, "do everything but the last step, and report it, without changing anything")
	f.BoolVar(&o.sheet, "sheet", false, "type the identity from the recovery sheet")
	f.StringVar(&o.at, "at", "", "in place of FILE: the newest recorded backup of this `TIME` or before: 2h or 3d ago, 2006-01-02 or 2006-01-02T15:04:05Z")
	f.StringArrayVar(&o.nodes, "node", nil, "restore only the nodes with this `NAME` or glob, into the vault in place; repeatable")
	f.BoolVar(&o.merge, "merge", false, "restore all nodes into the vault in place")
	f.StringVar(&o.prefer, "prefer", "", "which `SIDE` a node is taken from that differs: backup or live")
	f.BoolVar(&o.diff, "diff", false, "compare the backup with the vault in place, and change nothing")
}

func newRestore(a *app) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore {BACKUP | --at TIME}",
		Short: "Create a vault from a backup, or bring back a part of it",
		Long: `Create a vault from a backup, at --db. The whole backup is verified before anything is put
in place. The vault gets a new id, a new key and a new signing
key. It keeps the recipients of the backup, so the same recovery identity opens it. With
--sheet you type that identity from paper, and a mistake is pointed at.

` + backupArgument + `

If there is a vault in place, nothing is restored. With --replace it is set aside as
.replaced-<time>, and still opens with --db and that name.

--node and --merge restore into the vault in place, in one transaction: nodes with their
SSH key, host keys, key rotation, jump, note and labels. First they show what they would
do, and ask (--yes: no question). Slots, targets and the audit log stay the vault's own.

A node that the vault has with other fields is a conflict, and refused without --prefer.
With "--prefer backup" it becomes what it is in the backup, but for its status; the SSH
key that it used stays in the vault. With "--prefer live" it stays as it is. For --merge,
a node or key that was removed or renamed since the backup is a conflict too. A node whose
SSH key is being replaced does not get another key: finish the rotation first.

--diff prints each field in which backup and vault differ, keys by fingerprint.`,
		Example: `  rbee-vault restore beehives-20260102T150405Z-000007.tar.gz.age --identity recovery.txt
  rbee-vault restore beehives-20260102T150405Z-000007.tar.gz.age --sheet
  rbee-vault restore s3://fleet-backups/hive --region eu-central-1 --identity recovery.txt --signer SHA256:...
  rbee-vault restore --at 3d --diff --identity recovery.txt
  rbee-vault restore --at 3d --node 'hive-*' --prefer backup --identity recovery.txt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runRestore(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

type restoreJSON struct {
	DryRun   bool            `json:"dry_run"`
	Source   string          `json:"source"`
	Path     string          `json:"path"`
	VaultID  *string         `json:"vault_id"` // these three are null after a dry run
	KeyID    *string         `json:"key_id"`
	Signer   *signerJSON     `json:"signer"`
	Keyring  bool            `json:"keyring"`
	Slots    []vault.Slot    `json:"slots"`
	LeftOut  []vault.Slot    `json:"left_out"`
	Replaced *string         `json:"replaced"`
	Manifest backup.Manifest `json:"manifest"`
}

func runRestore(ctx context.Context, a *app, o restoreOptions, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	if o.sheet {
		if err := o.offerTyped(ctx, a, args); err != nil {
			return restoreHint(err)
		}
	}
	from, err := o.wanted(ctx, a, args)
	if err != nil {
		return err
	}
	if o.isPart() {
		return restorePart(ctx, a, o, from)
	}
	return restoreWhole(ctx, a, o, from)
}

// offerTyped has the command open with an identity that the operator types from paper, in the
// place of --identity.
func (o restoreOptions) offerTyped(ctx context.Context, a *app, args []string) error {
	if len(a.identities) > 0 {
		return usagef("give either --identity or --sheet")
	}
	if err := o.worthTyping(a, args); err != nil {
		return err
	}
	typed, err := a.askIdentity(ctx)
	if err == nil {
		a.offers = []vault.Offer{{Name: "what was typed", Identities: []age.Identity{typed}}}
	}
	return err
}

// worthTyping refuses early what would fail after the operator has typed an identity: a backup
// that is not there, a vault in place that is not to be replaced, or one that is missing.
func (o restoreOptions) worthTyping(a *app, args []string) error {
	var err error
	if o.at == "" {
		err = o.checkSource(a, args[0])
	} else {
		_, err = parseMoment("at", o.at, a.now())
	}
	if err != nil {
		return err
	}
	path, err := a.path()
	if err != nil {
		return err
	}
	switch there := vault.CheckAbsent(path); {
	case there == nil && (o.isPart() || o.at != ""):
		return fmt.Errorf("%w at %q", vault.ErrNoVault, path)
	case there != nil && !o.isPart() && !o.replace:
		return there
	}
	return nil
}

// restoreWhole makes a vault from the backup, or with --dry-run does as much of it as leaves
// nothing behind.
func restoreWhole(ctx context.Context, a *app, o restoreOptions, from wantedBackup) error {
	cfg, err := a.config(ctx)
	if err != nil {
		return err
	}
	done, source, err := restore(ctx, a, cfg, o, from)
	if err != nil {
		return restoreHint(err)
	}
	if a.json {
		return a.ui.object(newRestoreJSON(done, source, o))
	}
	a.showRestored(done, o)
	return nil
}

// restore puts the backup in place, and returns where it was read. If the backup is damaged or not trusted, the audit log
// of the vault that it should have replaced records the attempt.
func restore(ctx context.Context, a *app, cfg vault.Config, o restoreOptions, from wantedBackup) (done backup.Restored, source string, err error) {
	if err := needIdentities(cfg.Identities, true); err != nil {
		return done, "", err
	}
	r, err := o.openBackup(ctx, a, from.name)
	if err != nil {
		return done, "", err
	}
	defer r.Close()
	read, err := o.build(ctx, a, cfg, o.replace || from.record != nil)
	if err != nil {
		return done, "", err
	}
	done, err = backup.Restore(ctx, cfg, r, backup.RestoreOptions{
		ReadOptions:     from.expect(read, r),
		NoKeyring:       o.noKeyring,
		Replace:         o.replace,
		DryRun:          o.dryRun,
		ConfirmUnproven: a.confirmUnproven(o.dryRun),
	})
	if err != nil && o.replace && !o.dryRun {
		a.auditRefusal(ctx, cfg, from.name, err)
	}
	return done, r.source, err
}

func newRestoreJSON(done backup.Restored, source string, o restoreOptions) restoreJSON {
	j := restoreJSON{
		DryRun:   o.dryRun,
		Source:   source,
		Path:     done.Path,
		Keyring:  !o.noKeyring,
		Slots:    done.Slots,
		LeftOut:  notNil(done.LeftOut),
		Replaced: wire.Nullable(done.Aside),
		Manifest: done.Manifest,
	}
	if !o.dryRun {
		keyID, signer := done.KeyID.String(), newSignerJSON(done.Signer)
		j.VaultID, j.KeyID, j.Signer = &done.VaultID, &keyID, &signer
	}
	return j
}

func (a *app) showRestored(done backup.Restored, o restoreOptions) {
	pairs := [][2]string{{"vault", done.Path}}
	if !o.dryRun {
		pairs = append(pairs, [2]string{"vault id", done.VaultID}, [2]string{"signer", vault.Fingerprint(done.Signer)})
	}
	pairs = append(pairs, [2]string{"restored", fmt.Sprintf("backup %d of vault %s, %s: %s", done.Manifest.Sequence, done.Manifest.VaultID, done.Manifest.Created, countsText(done.Manifest.Counts))})
	if !o.noKeyring {
		pairs = append(pairs, [2]string{"opens by", "the OS keyring"})
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
	if o.dryRun {
		a.ui.info("Nothing was changed: this was a dry run. A restore would make this vault, with an id, a key and a signer of its own.")
		return
	}
	a.ui.info(`
This is a new vault with a new signer. Write the signer's fingerprint on the recovery
sheet, or keep a new sheet: rbee-vault status --sheet FILE`)
	a.showUnvouched(done.Slots, done.Signer)
}

// confirmUnproven asks about the recipients of a vault in place that nothing vouches for. A
// dry run does not ask, but where the question could not be asked it fails too.
func (a *app) confirmUnproven(dryRun bool) func(context.Context, vault.UnprovenVault) error {
	return func(ctx context.Context, in vault.UnprovenVault) error {
		a.ui.warn("nothing vouches for the vault in place: %v", in.Cause)
		if in.Recipients == nil {
			a.ui.warn("its recipients are not known, so all recipients of the backup come back, even those that were removed later")
		} else {
			a.ui.warn("of the backup's recipients only these are kept, which its slots file names; anybody who can write that file could have changed them:")
			for _, s := range in.Recipients {
				a.ui.warn("  %s", slotText(s))
			}
		}
		if dryRun && a.interactive() {
			return nil
		}
		if in.Lost {
			return a.ui.confirm(ctx, "Restore with these recipients?")
		}
		return a.ui.confirm(ctx, "Set it aside as it is, and put the backup in its place?")
	}
}

// showUnvouched lists the unlock methods that do not vouch for the signer yet.
func (a *app) showUnvouched(slots []vault.Slot, signer string) {
	var unvouched []string
	for _, s := range slots {
		if !s.Vouched() {
			unvouched = append(unvouched, slotText(s))
		}
	}
	if unvouched == nil {
		return
	}
	a.ui.info(`
These unlock methods have not vouched for the signer yet. Each of them asks once, at its
first use, or vouches with the command below. A service cannot be asked, so run the
command for its credential first.`)
	for _, text := range unvouched {
		a.ui.info("  %s", text)
	}
	a.ui.info("\n  rbee-vault status --identity FILE --signer %s", vault.Fingerprint(signer))
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
