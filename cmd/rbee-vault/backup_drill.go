package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type drillOptions struct {
	readOptions
	sheet   bool
	receipt string
}

func (o *drillOptions) register(cmd *cobra.Command) {
	o.readOptions.register(cmd)
	cmd.Flags().BoolVar(&o.sheet, "sheet", false, "type the identity from the recovery sheet")
	cmd.Flags().StringVar(&o.receipt, "receipt", "", "write the receipt to the new `FILE`, and its signature to FILE.sig")
}

func newBackupDrill(a *app) *cobra.Command {
	var o drillOptions
	cmd := &cobra.Command{
		Use:   "drill [SEQUENCE|COPY|BACKUP]",
		Short: "Try a restore out, and keep a signed receipt",
		Long: `Restore a backup into a throwaway vault beside the database, open it, check everything in
it, and compare it with what the vault recorded when the backup was made; with the vault
itself too, if nothing has changed since. The throwaway vault is encrypted under a key
that is kept nowhere, and is removed. Nothing else changes.

It is the newest backup, one by its number or copy in "backup list", or any BACKUP that
"restore" takes. It opens with --identity, or with --sheet by what you type from paper,
where a mistake is pointed at. The vault signs a receipt, and "status", "doctor" and "backup list" tell it.`,
		Example: `  rbee-vault backup drill --sheet
  rbee-vault backup drill 7 --identity recovery.txt --receipt drill.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runBackupDrill(cmd.Context(), a, o, append(args, "")[0])
		},
	}
	o.register(cmd)
	return cmd
}

type drillJSON struct {
	Sequence   *int64  `json:"sequence"` // null: it is not a backup of this vault
	At         string  `json:"at"`
	UnlockedBy string  `json:"unlocked_by"`
	TookMS     int64   `json:"took_ms"`
	Failed     *string `json:"failed"`
	Receipt    string  `json:"receipt"`
	Signature  string  `json:"signature"`
}

func newDrillJSON(d backup.Drill) drillJSON {
	j := drillJSON{nil, wire.FormatTime(d.At), d.UnlockedBy, d.Took.Milliseconds(), wire.Nullable(d.Failed), string(d.Receipt), string(d.Signature)}
	if d.Sequence != 0 {
		j.Sequence = &d.Sequence
	}
	return j
}

func runBackupDrill(ctx context.Context, a *app, o drillOptions, name string) error {
	for _, file := range []string{o.receipt, o.receipt + ".sig"} {
		if _, err := checkNewFile(file); o.receipt != "" && err != nil {
			return err
		}
	}
	cfg, err := a.config(ctx)
	if err != nil {
		return err
	}
	identities := cfg.Identities
	if o.sheet {
		typed, err := a.askIdentity(ctx)
		if err != nil {
			return err
		}
		identities = []age.Identity{typed}
	}
	if err := needIdentities(identities, true); err != nil {
		return err
	}
	read, err := o.build(ctx, a, cfg, false) // the open vault vouches for its own backups
	if err != nil {
		return err
	}
	read.Identities = identities
	v, err := openBeside(ctx, cfg, identities)
	if err != nil {
		return err
	}
	defer v.Close()
	o.vault = v
	sequence, r, err := o.open(ctx, a, name)
	if err != nil {
		return err
	}
	defer r.Close()
	d, err := backup.Prove(ctx, v, r, backup.DrillOptions{ReadOptions: read, Sequence: sequence, Plugins: cfg.Plugins, Program: "rbee-vault " + version})
	if d.At.IsZero() {
		return err
	}
	if e := a.showDrill(o, d); e != nil && err == nil {
		err = e
	}
	return err
}

// showDrill prints the result, and writes the receipt out.
func (a *app) showDrill(o drillOptions, d backup.Drill) error {
	if o.receipt != "" {
		if err := vault.CreateFile(o.receipt, d.Receipt); err != nil {
			return err
		}
		if err := vault.CreateFile(o.receipt+".sig", d.Signature); err != nil {
			return err
		}
	}
	if a.json {
		return a.ui.object(newDrillJSON(d))
	}
	if d.Failed == "" {
		what := "a backup of another vault"
		if d.Sequence != 0 {
			what = fmt.Sprintf("backup %d", d.Sequence)
		}
		a.ui.printf("%s restores: proven in %s, by %s\n", what, d.Took.Round(time.Millisecond), d.UnlockedBy)
	}
	if o.receipt != "" {
		a.ui.info("The receipt is in %s, its signature in %s.sig.", o.receipt, o.receipt)
	}
	return nil
}

// openBeside opens the vault. The identities are given for the backup: if they do not open the
// vault too, its other unlock methods are tried, and in the end those that were typed.
func openBeside(ctx context.Context, cfg vault.Config, identities []age.Identity) (*vault.Vault, error) {
	v, err := vault.Open(ctx, cfg)
	for _, other := range [][]age.Identity{nil, identities} {
		if !errors.Is(err, vault.ErrWrongKey) && !errors.Is(err, vault.ErrNoUnlockMethod) && !errors.Is(err, keyring.ErrUnavailable) {
			break
		}
		cfg.Identities = other
		if opened, e := vault.Open(ctx, cfg); e == nil {
			return opened, nil
		}
	}
	return v, err
}

// open opens the backup that the operator named: one that the vault recorded, or any that a
// restore takes, for which sequence is 0.
func (o drillOptions) open(ctx context.Context, a *app, name string) (sequence int64, r io.ReadCloser, err error) {
	records, err := backup.List(ctx, o.vault)
	if err != nil {
		return 0, nil, err
	}
	record := backup.NewestRecord(records)
	if name == "" && record == nil {
		return 0, nil, withHint(fmt.Errorf("%w: there is no backup yet", vault.ErrInvalid), "Make one: rbee-vault backup")
	}
	if name != "" {
		record = namedRecord(records, name)
	}
	if record == nil {
		r, err = o.openBackup(ctx, a, name)
		return 0, r, err
	}
	r, err = record.Open(ctx, o.vault)
	return record.Sequence, r, withHint(err, "If its target lets the vault only write, read it by another credential: rbee-vault backup drill s3://BUCKET/PREFIX. Or try another one out: rbee-vault backup list")
}

// namedRecord returns the record that the operator named by its sequence or by one of its copies,
// or nil.
func namedRecord(records []backup.Record, name string) *backup.Record {
	sequence, err := strconv.ParseInt(name, 10, 64)
	for i, r := range records {
		if err == nil && r.Sequence == sequence && r.Completed() {
			return &records[i]
		}
		for _, c := range r.Copies {
			if r.Completed() && (c.String() == name || c.Target != "" && c.Name == name) {
				return &records[i]
			}
		}
	}
	return nil
}

// askIdentity asks for an identity that the operator types from paper.
func (a *app) askIdentity(ctx context.Context) (age.Identity, error) {
	if !a.interactive() {
		return nil, fmt.Errorf("%w for what is on the sheet, so --identity FILE is needed", errNeedsFlag)
	}
	for attempt := 1; ; attempt++ {
		typed, err := a.ui.askSecret(ctx, "Recovery identity on the sheet (AGE-SECRET-KEY-1...): ")
		if err != nil {
			return nil, err
		}
		id, err := identity.ParseTyped(string(typed))
		clear(typed)
		if err == nil || attempt == 3 {
			return id, err
		}
		a.ui.say("%v.", err)
	}
}
