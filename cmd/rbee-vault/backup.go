package main

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type backupOptions struct {
	out        string
	recipients []string
}

func (o *backupOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "write to the new `FILE`, '-' for standard output (default: backups/ beside the database)")
	cmd.Flags().StringArrayVar(&o.recipients, "recipient", nil, "also encrypt to this public `KEY`; repeatable")
}

func newBackup(a *app) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write the vault to one encrypted file",
		Long: `Write the vault to one file. It is encrypted to the recovery identity and every other
recipient of the vault, and signed by the vault. An existing file is never replaced.`,
		Example: `  rbee-vault backup
  rbee-vault backup -o /media/usb/fleet.tar.gz.age
  rbee-vault backup -o - | ssh ops@backup.example.org 'cat > fleet.tar.gz.age'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBackup(cmd.Context(), a, o) },
	}
	o.register(cmd)
	cmd.AddCommand(newBackupCreate(a), newBackupList(a), newBackupVerify(a))
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
	Path      string `json:"path"`
	Sequence  int64  `json:"sequence"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	Signer    string `json:"signer"`
	Unchanged bool   `json:"unchanged"`
}

func runBackup(ctx context.Context, a *app, o backupOptions) error {
	return a.withVault(ctx, func(v *vault.Vault) error { return a.backup(ctx, v, o) })
}

// backup makes a backup of the open vault and prints its path.
func (a *app) backup(ctx context.Context, v *vault.Vault, o backupOptions) error {
	opts := backup.CreateOptions{Path: o.out, Recipients: o.recipients, Program: "rbee-vault " + version}
	switch o.out {
	case "-":
		if err := a.ui.checkRaw("a backup is binary: redirect standard output to a file or a pipe"); err != nil {
			return err
		}
		opts.Writer = a.ui.out
	case "":
		opts.Dir = filepath.Join(filepath.Dir(v.Path()), "backups")
	}
	var end func()
	opts.Progress, end = a.ui.count("backup")
	created, err := backup.Create(ctx, v, opts)
	end()
	if err != nil && !errors.Is(err, backup.ErrNotRecorded) {
		return err
	}
	switch {
	case o.out == "-":
		a.ui.info("backup %d, %d bytes", created.Sequence, created.Size)
	case a.json:
		if e := a.ui.object(backupJSON{created.Path, created.Sequence, created.Size, created.SHA256, vault.Fingerprint(created.Signer), created.Unchanged}); e != nil {
			return e
		}
	default:
		a.ui.printf("%s\n", created.Path)
		if created.Unchanged {
			a.ui.info("The registry has not changed since the last backup.")
		}
	}
	return err
}

type backupListOptions struct {
	check bool
}

func (o *backupListOptions) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.check, "check", false, "read the files and compare their hashes, not only their sizes")
}

func newBackupList(a *app) *cobra.Command {
	var o backupListOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the vault's backups, and whether their files still exist",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runBackupList(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type recordJSON struct {
	Sequence int64            `json:"sequence"`
	Created  string           `json:"created"`
	Path     *string          `json:"path"`
	Size     int64            `json:"size"`
	SHA256   string           `json:"sha256"`
	State    backup.FileState `json:"state"`
}

func newRecordJSON(r backup.Record, state backup.FileState) recordJSON {
	return recordJSON{r.Sequence, wire.FormatTime(r.Created), wire.Nullable(r.Path), r.Size, r.SHA256, state}
}

func runBackupList(ctx context.Context, a *app, o backupListOptions) error {
	var records []backup.Record
	err := a.withVault(ctx, func(v *vault.Vault) (err error) {
		records, err = backup.List(ctx, v)
		return err
	})
	if err != nil {
		return err
	}
	if len(records) == 0 {
		a.ui.info("There are no backups yet. To make one: rbee-vault backup")
		return nil
	}
	var rows [][]string
	for _, r := range records {
		state := r.File(o.check)
		if a.json {
			if err := a.ui.object(newRecordJSON(r, state)); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{strconv.FormatInt(r.Sequence, 10), wire.FormatTime(r.Created), strconv.FormatInt(r.Size, 10), string(state), cmp.Or(r.Path, "-")})
	}
	if !a.json {
		a.ui.table([]string{"SEQ", "CREATED", "SIZE", "STATE", "FILE"}, rows, nil)
	}
	return nil
}
