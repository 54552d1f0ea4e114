package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type backupOptions struct {
	out        string
	targets    []string
	recipients []string
	ifChanged  bool
	hook       string
}

func (o *backupOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "write to the new `FILE`, or into a directory; '-' for standard output")
	cmd.Flags().StringArrayVar(&o.targets, "target", nil, "write to this target alone: its `NAME`; repeatable (default: the setting backup-target, which is every target; without any, backups/ beside the database)")
	cmd.Flags().StringArrayVar(&o.recipients, "recipient", nil, "also encrypt to this public `KEY`; repeatable")
	cmd.Flags().BoolVar(&o.ifChanged, "if-changed", false, "make none if the newest one holds the same, and is everywhere it should be")
	cmd.Flags().StringVar(&o.hook, "hook", "", "then run this `COMMAND`, with the copies as arguments; no shell reads it")
	cmd.MarkFlagsMutuallyExclusive("output", "target")
}

func newBackup(a *app) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write the vault to one encrypted file",
		Long: `Write the vault to one file. It is encrypted to the recovery identity and every other
recipient of the vault, and signed by the vault. An existing file is never replaced.

It goes to every target, or to those that the setting backup-target names. To add one:
rbee-vault backup target add`,
		Example: `  rbee-vault backup
  rbee-vault backup -o /media/usb/fleet.tar.gz.age
  rbee-vault backup -o - | ssh ops@backup.example.org 'cat > fleet.tar.gz.age'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBackup(cmd.Context(), a, o) },
	}
	o.register(cmd)
	cmd.AddCommand(newBackupCreate(a), newBackupList(a), newBackupVerify(a), newBackupTarget(a), newBackupDrill(a),
		newBackupPrune(a), newBackupStatus(a), newBackupRecipients(a), newBackupTimer(a))
	return cmd
}

func newBackupCreate(a *app) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "create",
		Short: "The same as \"backup\" alone",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runBackup(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type backupJSON struct {
	Sequence  int64      `json:"sequence"`
	Created   string     `json:"created"`
	Size      int64      `json:"size"`
	SHA256    string     `json:"sha256"`
	Signer    string     `json:"signer"`
	Unchanged bool       `json:"unchanged"`
	Confirmed *string    `json:"confirmed"` // no new backup was made: this one holds the same, as of then
	Copies    []copyJSON `json:"copies"`
}

type copyJSON struct {
	Target      *string          `json:"target"`
	Name        string           `json:"name"`
	State       backup.FileState `json:"state"`
	Written     *string          `json:"written"`
	LockedUntil *string          `json:"locked_until"`
	Failed      *string          `json:"failed"`
	Gone        *string          `json:"gone"`
}

func newCopiesJSON(r backup.Record, hash bool) []copyJSON {
	copies := []copyJSON{}
	for _, c := range r.Copies {
		copies = append(copies, copyJSON{
			Target:      wire.Nullable(c.Target),
			Name:        c.Name,
			State:       r.State(c, hash),
			Written:     nullableTime(c.Written),
			LockedUntil: nullableTime(c.LockedUntil),
			Failed:      wire.Nullable(c.Failed),
			Gone:        nullableTime(c.Gone),
		})
	}
	return copies
}

func runBackup(ctx context.Context, a *app, o backupOptions) error {
	h, err := newHook(o.hook)
	if err != nil {
		return err
	}
	if h != nil && o.out == "-" {
		return usagef("--hook and '-o -' do not go together")
	}
	var made *backup.Record
	err = a.withVault(ctx, func(v *vault.Vault) (err error) {
		made, err = a.backup(ctx, v, o)
		return err
	})
	if err != nil || made == nil {
		return err
	}
	return h.run(ctx, a, *made)
}

// backup makes a backup of the open vault and prints where it is. It returns the backup, or nil
// if none was needed.
func (a *app) backup(ctx context.Context, v *vault.Vault, o backupOptions) (*backup.Record, error) {
	opts, err := a.createOptions(ctx, v, o)
	if err != nil {
		return nil, err
	}
	if o.ifChanged {
		if last, confirmed, err := backup.Confirm(ctx, v, opts); err != nil || confirmed {
			return nil, a.showConfirmed(last, err)
		}
	}
	var end func()
	opts.Progress, end = a.ui.count("backup")
	created, err := backup.Create(ctx, v, opts)
	end()
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, backup.ErrPartial) && len(opts.Targets) > 0 {
		err = withHint(err, "Nothing was written. Is its disk mounted? rbee-vault backup target check. The next backup tries every target again.")
	}
	if err != nil && !errors.Is(err, backup.ErrNotRecorded) && !errors.Is(err, backup.ErrPartial) {
		return nil, err
	}
	switch {
	case o.out == "-":
		a.ui.info("backup %d, %d bytes", created.Sequence, created.Size)
	case a.json:
		if e := a.ui.object(newBackupJSON(created)); e != nil {
			return nil, e
		}
	default:
		for _, c := range created.Copies {
			if c.There() {
				a.ui.printf("%s\n", c)
			}
		}
		if created.Unchanged {
			a.ui.info("The registry has not changed since the last backup.")
		}
	}
	return &created.Record, err
}

// showConfirmed prints that the newest backup holds the same, or returns the error.
func (a *app) showConfirmed(last backup.Record, err error) error {
	if err == nil && a.json {
		return a.ui.object(newBackupJSON(backup.Created{Record: last, Unchanged: true}))
	}
	if err == nil {
		a.ui.info("Nothing has changed since backup %d of %s, so there is no new one.", last.Sequence, wire.FormatTime(last.Created))
	}
	return err
}

// backupsDir is the directory beside the database that backups go to where there is no target.
const backupsDir = "backups"

// createOptions decides where the backup goes: to -o, else to --target, else to the targets
// that the setting names, else to every target of the vault. Without any it goes into the
// directory backups/ beside the database.
func (a *app) createOptions(ctx context.Context, v *vault.Vault, o backupOptions) (backup.CreateOptions, error) {
	opts := backup.CreateOptions{Recipients: o.recipients, Targets: slices.Compact(slices.Sorted(slices.Values(o.targets))), Program: "rbee-vault " + version}
	if o.out == "-" {
		opts.Writer = a.ui.out
		return opts, a.ui.checkRaw("a backup is binary: redirect standard output to a file or a pipe")
	}
	if info, err := os.Stat(o.out); err == nil && info.IsDir() {
		opts.Dir = o.out
		return opts, nil
	}
	if opts.Path = o.out; o.out != "" || len(o.targets) > 0 {
		return opts, nil
	}
	values, err := a.fleetSettings(ctx, v)
	if err != nil {
		return opts, err
	}
	targets, err := backup.Targets(ctx, v)
	if err != nil {
		return opts, err
	}
	if opts.Targets = targetsOf(values); opts.Targets != nil {
		return opts, checkTargets(opts.Targets, targets, "To back up to every target: rbee-vault config set backup-target all")
	}
	for _, t := range targets {
		opts.Targets = append(opts.Targets, t.Name)
	}
	if len(targets) == 0 {
		opts.Dir = filepath.Join(filepath.Dir(v.Path()), backupsDir)
	}
	return opts, nil
}

func newBackupJSON(c backup.Created) backupJSON {
	return backupJSON{
		Sequence:  c.Sequence,
		Created:   wire.FormatTime(c.Created),
		Size:      c.Size,
		SHA256:    c.SHA256,
		Signer:    c.Signer,
		Unchanged: c.Unchanged,
		Confirmed: nullableTime(c.Confirmed),
		Copies:    newCopiesJSON(c.Record, false),
	}
}
