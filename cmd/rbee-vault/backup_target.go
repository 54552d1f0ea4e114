package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newBackupTarget(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "target",
		Short: "Where backups go: directories, and buckets of S3-compatible stores",
		Long: `Where backups go: directories, and buckets of S3-compatible stores. Each backup is
written to all of them. The vault keeps the targets, with their credentials.`,
	}
	cmd.AddCommand(newBackupTargetAdd(a), newBackupTargetList(a), newBackupTargetCheck(a), newBackupTargetRemove(a))
	return cmd
}

type targetJSON struct {
	Name        string  `json:"name"`
	URL         string  `json:"url"`
	Endpoint    *string `json:"endpoint"`
	Region      *string `json:"region"`
	Profile     *string `json:"profile"`
	AccessKey   *string `json:"access_key"` // null: the machine's own credential
	Retain      int64   `json:"retain_seconds"`
	Conditional bool    `json:"conditional"`
	Checksum    bool    `json:"checksum"`
	Created     string  `json:"created"`
}

func newTargetJSON(t backup.Target) targetJSON {
	return targetJSON{
		Name:        t.Name,
		URL:         t.URL,
		Endpoint:    wire.Nullable(t.Endpoint),
		Region:      wire.Nullable(t.Region),
		Profile:     wire.Nullable(t.Profile),
		AccessKey:   wire.Nullable(t.AccessKey),
		Retain:      int64(t.Retain / time.Second),
		Conditional: !t.NoConditional,
		Checksum:    !t.NoChecksum,
		Created:     wire.FormatTime(t.Created),
	}
}

func newBackupTargetList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the targets",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runBackupTargetList(cmd.Context(), a) },
	}
}

func runBackupTargetList(ctx context.Context, a *app) error {
	var targets []backup.Target
	err := a.withVault(ctx, func(v *vault.Vault) (err error) {
		targets, err = backup.Targets(ctx, v)
		return err
	})
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		a.ui.info("There are no targets yet. To add one: rbee-vault backup target add NAME URL")
		return nil
	}
	if a.json {
		return objectsOf(a.ui, targets, newTargetJSON)
	}
	list := newTable("NAME", "URL", "ENDPOINT", "CREDENTIAL", "LOCK", "WITHOUT")
	for _, t := range targets {
		lock := "-"
		if t.Retain > 0 {
			lock = daysText(t.Retain)
		}
		list.row(t.Name, t.URL, t.Endpoint, credentialText(t), lock, headersText(t))
	}
	a.ui.table(list)
	return nil
}

// credentialText says whose credential a target uses.
func credentialText(t backup.Target) string {
	switch {
	case !t.Bucket():
		return "-"
	case t.AccessKey != "":
		return t.AccessKey
	case t.Profile != "":
		return "profile " + t.Profile
	}
	return "the machine's"
}

// headersText names what the target's requests leave out.
func headersText(t backup.Target) string {
	switch {
	case t.NoConditional && t.NoChecksum:
		return "conditional, checksum"
	case t.NoConditional:
		return "conditional"
	case t.NoChecksum:
		return "checksum"
	}
	return "-"
}

func newBackupTargetRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Forget a target, and leave what is there alone",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runBackupTargetRemove(cmd.Context(), a, args[0]) },
	}
}

func runBackupTargetRemove(ctx context.Context, a *app, name string) error {
	err := a.withVault(ctx, func(v *vault.Vault) error {
		values, err := a.fleetSettings(ctx, v)
		if err != nil {
			return err
		}
		if slices.Contains(targetsOf(values), name) {
			return withHint(fmt.Errorf("the target %s is %w: the setting %s names it", name, registry.ErrInUse, registry.SettingBackupTarget), "To back up to every target: rbee-vault config set backup-target all")
		}
		return backup.RemoveTarget(ctx, v, name)
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.ui.object(struct {
			Removed string `json:"removed"`
		}{name})
	}
	a.ui.info("No backup goes to %s any more. The backups there are left alone.", name)
	return nil
}
