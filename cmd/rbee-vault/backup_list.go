package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

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
	Sequence int64      `json:"sequence"`
	Created  string     `json:"created"`
	Size     int64      `json:"size"`
	SHA256   string     `json:"sha256"`
	Copies   []copyJSON `json:"copies"`
}

func newRecordJSON(r backup.Record, hash bool) recordJSON {
	return recordJSON{r.Sequence, wire.FormatTime(r.Created), r.Size, r.SHA256, newCopiesJSON(r, hash)}
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
		if a.json {
			if err := a.ui.object(newRecordJSON(r, o.check)); err != nil {
				return err
			}
			continue
		}
		for _, c := range r.Copies {
			rows = append(rows, []string{strconv.FormatInt(r.Sequence, 10), wire.FormatTime(r.Created), strconv.FormatInt(r.Size, 10), string(r.State(c, o.check)), c.String()})
		}
	}
	if !a.json {
		a.ui.table([]string{"SEQ", "CREATED", "SIZE", "STATE", "COPY"}, rows, nil)
	}
	return nil
}
