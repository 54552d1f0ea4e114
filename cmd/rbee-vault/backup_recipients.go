package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newBackupRecipients(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "recipients",
		Short: "Show who can open which backup",
		Long: `Show for each recipient which of the backups that are kept it opens. A recipient that was
removed from the vault, or never was of it, still opens the backups that name it: they are
to be pruned, or kept away from whoever has its identity.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBackupRecipients(cmd.Context(), a) },
	}
}

type readerJSON struct {
	Recipient string  `json:"recipient"`
	Label     string  `json:"label"`
	OfVault   bool    `json:"of_vault"` // it is an unlock method of the vault today
	Sequences []int64 `json:"sequences"`
}

func runBackupRecipients(ctx context.Context, a *app) error {
	var readers []backup.Reader
	ofVault := map[string]bool{}
	err := a.withVault(ctx, func(v *vault.Vault) error {
		records, err := backup.List(ctx, v)
		if err != nil {
			return err
		}
		readers = backup.Readers(records)
		_, slots, err := metaAndSlots(ctx, v)
		for _, s := range slots {
			ofVault[s.Recipient] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return objectsOf(a.ui, readers, func(r backup.Reader) readerJSON {
			return readerJSON{r.Recipient.Recipient, r.Label, ofVault[r.Recipient.Recipient], r.Sequences}
		})
	}
	t := newTable("NAME", "OPENS THE VAULT", "OPENS BACKUPS", "RECIPIENT")
	for _, r := range readers {
		today := "yes"
		if !ofVault[r.Recipient.Recipient] {
			today = "no"
		}
		t.row(r.Name(), today, backup.Ranges(r.Sequences), r.Recipient.Recipient)
	}
	a.ui.table(t)
	return nil
}

// stillOpens names the backups that a removed reader still opens; "" for none.
func stillOpens(ctx context.Context, v *vault.Vault, recipient string) (string, error) {
	records, err := backup.List(ctx, v)
	if err != nil {
		return "", err
	}
	for _, r := range backup.Readers(records) {
		if r.Recipient.Recipient == strings.TrimSpace(recipient) {
			return backup.Ranges(r.Sequences), nil
		}
	}
	return "", nil
}
