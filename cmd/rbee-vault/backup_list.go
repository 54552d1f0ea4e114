package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type backupListOptions struct {
	tableOptions
	check  bool
	target string
}

func (o *backupListOptions) register(cmd *cobra.Command) {
	o.tableOptions.register(cmd, backupHeaders...)
	cmd.Flags().BoolVar(&o.check, "check", false, "read the files and compare their hashes, not only their sizes")
	cmd.Flags().StringVar(&o.target, "target", "", "list what is in this target: its `NAME`, or its address, to read it by the credential in the environment")
}

func newBackupList(a *app) *cobra.Command {
	var o backupListOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the vault's backups, and whether their files still exist",
		Long: `List the backups that the vault recorded: a line for each copy, with its state, who can
open it, who signed it, when a copy was last verified and when its restore was last tried
out. With --target, list what is in a target: what the vault has not recorded is unknown.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBackupList(cmd.Context(), a, o) },
	}
	o.register(cmd)
	cmd.MarkFlagsMutuallyExclusive("check", "target")
	return cmd
}

type recordJSON struct {
	Sequence   int64              `json:"sequence"`
	Created    string             `json:"created"`
	Size       int64              `json:"size"`
	SHA256     string             `json:"sha256"`
	Nodes      int64              `json:"nodes"`
	SSHKeys    int64              `json:"ssh_keys"`
	Signer     *string            `json:"signer"`
	Confirmed  *string            `json:"confirmed"`
	Verified   *string            `json:"verified"`
	Proven     *string            `json:"proven"`
	Recipients []backup.Recipient `json:"recipients"`
	Copies     []copyJSON         `json:"copies"`
}

func newRecordJSON(r backup.Record, hash bool) recordJSON {
	return recordJSON{
		Sequence:   r.Sequence,
		Created:    wire.FormatTime(r.Created),
		Size:       r.Size,
		SHA256:     r.SHA256,
		Nodes:      r.Nodes,
		SSHKeys:    r.SSHKeys,
		Signer:     wire.Nullable(r.Signer),
		Confirmed:  nullableTime(r.Confirmed),
		Verified:   nullableTime(r.Verified),
		Proven:     nullableTime(r.Proven),
		Recipients: notNil(r.Recipients),
		Copies:     newCopiesJSON(r, hash),
	}
}

var backupHeaders = []string{"SEQ", "AGE", "SIZE", "NODES", "KEYS", "STATE", "VERIFIED", "PROVEN", "OPENS BY", "SIGNER", "COPY"}

func runBackupList(ctx context.Context, a *app, o backupListOptions) error {
	if o.target != "" {
		return runTargetList(ctx, a, o)
	}
	t, err := o.table(backupHeaders)
	if err != nil {
		return err
	}
	t.dropFirst(o.tableOptions, "SIGNER", "KEYS", "NODES", "OPENS BY", "VERIFIED", "SIZE")
	var records []backup.Record
	err = a.withVault(ctx, func(v *vault.Vault) (err error) {
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
	showGaps(a, records)
	if a.json {
		return objectsOf(a.ui, records, func(r backup.Record) recordJSON { return newRecordJSON(r, o.check) })
	}
	for _, r := range records {
		for _, c := range r.Copies {
			t.row(
				r.Sequence,
				r.Created,
				byteCount(r.Size),
				r.Nodes,
				r.SSHKeys,
				r.State(c, o.check),
				r.Verified,
				r.Proven,
				recipientsText(r.Recipients),
				fingerprint(r.Signer),
				c.String(),
			)
		}
	}
	a.ui.table(t)
	return nil
}

// showGaps warns of backups whose records are gone. Nothing removes them but another program.
func showGaps(a *app, records []backup.Record) {
	next := int64(1)
	for _, r := range records {
		if r.Sequence > next {
			a.ui.warn("the records of the backups %d to %d are missing", next, r.Sequence-1)
		}
		next = r.Sequence + 1
	}
}

type foundJSON struct {
	Sequence *int64           `json:"sequence"` // null: the vault has not recorded it
	State    backup.FileState `json:"state"`
	Name     string           `json:"name"`
	Version  *string          `json:"version"`
	Size     int64            `json:"size"`
	Modified *string          `json:"modified"`
	Hidden   bool             `json:"hidden"`
}

func newFoundJSON(f backup.Found) foundJSON {
	j := foundJSON{nil, f.State, f.Name, wire.Nullable(f.Version), f.Size, nullableTime(f.Modified), f.Hidden}
	if f.Sequence != 0 {
		j.Sequence = &f.Sequence
	}
	return j
}

// runTargetList lists what is in a target.
func runTargetList(ctx context.Context, a *app, o backupListOptions) error {
	t, err := o.table([]string{"SEQ", "STATE", "AGE", "SIZE", "NAME", "VERSION"})
	if err != nil {
		return err
	}
	t.dropFirst(o.tableOptions, "VERSION", "SIZE")
	var found []backup.Found
	err = a.withVault(ctx, func(v *vault.Vault) (err error) {
		name, store, err := chooseTarget(ctx, v, o.target)
		if err != nil {
			return err
		}
		found, err = backup.Inventory(ctx, v, name, store)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return objectsOf(a.ui, found, newFoundJSON)
	}
	for _, f := range found {
		sequence := ""
		if f.Sequence != 0 {
			sequence = strconv.FormatInt(f.Sequence, 10)
		}
		t.row(sequence, f.State, f.Modified, byteCount(f.Size), f.Name, f.Version)
	}
	a.ui.table(t)
	return nil
}

// recipientsText names who can open a backup.
func recipientsText(recipients []backup.Recipient) string {
	var names []string
	for _, r := range recipients {
		names = append(names, r.Name())
	}
	return strings.Join(names, ",")
}
