package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type backupOptions struct {
	out        string
	recipients []string
}

func (o *backupOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "write to the new `FILE`, '-' for standard output (default: backups/ beside the database)")
	cmd.Flags().StringArrayVar(&o.recipients, "recipient", nil, "let the owner of this public `KEY` read it too; repeatable")
}

func newBackup(a *app) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write the vault into one encrypted file",
		Long: `Write the vault into one file, encrypted to the recovery identity and every other
recipient of the vault, and signed by the vault. It never replaces a file.`,
		Example: `  rbee-vault backup
  rbee-vault backup -o /media/usb/fleet.tar.gz.age
  rbee-vault backup -o - | ssh ops@backup.example.org 'cat > fleet.tar.gz.age'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBackup(cmd.Context(), a, o) },
	}
	o.register(cmd)
	var c backupOptions
	create := &cobra.Command{
		Use:   "create",
		Short: "The same as backup alone",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runBackup(cmd.Context(), a, c) },
	}
	c.register(create)
	cmd.AddCommand(create, newBackupList(a), newBackupVerify(a))
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

// backup makes a backup of the open vault and tells of it.
func (a *app) backup(ctx context.Context, v *vault.Vault, o backupOptions) error {
	opts := backup.CreateOptions{Path: o.out, Recipients: o.recipients, Program: "rbee-vault " + version}
	switch {
	case o.out == "-" && a.ui.pretty:
		return fmt.Errorf("%w: a backup is binary: send standard output to a file or a pipe", vault.ErrInvalid)
	case o.out == "-" && a.json:
		return fmt.Errorf("%w: --json and -o - both want standard output", vault.ErrInvalid)
	case o.out == "-":
		opts.Writer = a.ui.out
	case o.out == "":
		opts.Dir = filepath.Join(filepath.Dir(v.Path()), "backups")
	}
	var end func()
	opts.Progress, end = a.ui.progress("backup")
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
			a.ui.info("The registry is as it was in the backup before.")
		}
	}
	return err
}

func newBackupList(a *app) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the vault's backups, and which of the files are still there",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runBackupList(cmd.Context(), a, check) },
	}
	cmd.Flags().BoolVar(&check, "check", false, "read the files and compare their hashes, not only their sizes")
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
	j := recordJSON{Sequence: r.Sequence, Created: wire.FormatTime(r.Created), Size: r.Size, SHA256: r.SHA256, State: state}
	if r.Path != "" {
		j.Path = &r.Path
	}
	return j
}

func runBackupList(ctx context.Context, a *app, check bool) error {
	var records []backup.Record
	err := a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		records, err = backup.List(ctx, r.Vault())
		return err
	})
	if err != nil {
		return err
	}
	var rows [][]string
	for _, r := range records {
		state := r.File(check)
		if a.json {
			if err := a.ui.object(newRecordJSON(r, state)); err != nil {
				return err
			}
			continue
		}
		path := r.Path
		if path == "" {
			path = "-"
		}
		rows = append(rows, []string{strconv.FormatInt(r.Sequence, 10), wire.FormatTime(r.Created), strconv.FormatInt(r.Size, 10), string(state), path})
	}
	if len(records) == 0 {
		a.ui.info("There are no backups yet: rbee-vault backup")
		return nil
	}
	if !a.json {
		a.ui.table([]string{"SEQ", "CREATED", "SIZE", "STATE", "FILE"}, rows, nil)
	}
	return nil
}

// needIdentities is asked before a backup is read: there may be much of it.
func needIdentities(identities []age.Identity) error {
	if len(identities) > 0 {
		return nil
	}
	return withHint(fmt.Errorf("%w: a backup opens by identity alone", vault.ErrNoWayIn),
		"Give the recovery identity or a recipient's: --identity FILE. A passphrase opens the vault that the backup was made of, not the backup.")
}

// openBackup opens the file, or standard input. What comes through a pipe is read to
// its end now, before the vault in place is locked for it.
func (a *app) openBackup(ctx context.Context, file string) (io.ReadCloser, error) {
	var in *input
	var err error
	if file == "-" {
		if f, ok := a.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return nil, fmt.Errorf("%w: standard input is a terminal, not a backup", vault.ErrInvalid)
		}
		in, err = a.takeStdin(ctx, "the backup")
	} else {
		in, err = openInput(ctx, file)
	}
	if err != nil || in.regular {
		return in, err
	}
	defer in.Close()
	return spool(in)
}

func newBackupVerify(a *app) *cobra.Command {
	var o readOptions
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a backup as a restore would, and write nothing",
		Long: `Check a backup from its first byte to its last: encryption, signature and signer,
sums, counts, and the audit log's chain. FILE may be '-'. It opens by --identity.
It is trusted when the vault in place made it and recorded it, or by --signer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runVerify(cmd.Context(), a, o, args[0], true) },
	}
	o.register(cmd)
	return cmd
}

type verifiedJSON struct {
	Manifest backup.Manifest `json:"manifest"`
	Signer   string          `json:"signer"`
}

// runVerify verifies a backup, and says what it holds.
func runVerify(ctx context.Context, a *app, o readOptions, file string, askVault bool) error {
	m, err := verifiedBackup(ctx, a, o, file, askVault, nil)
	if err != nil {
		return err
	}
	if a.json {
		return a.ui.object(verifiedJSON{m, m.SignerFingerprint()})
	}
	a.ui.printf("ok: backup %d of vault %s, %s: %s\n", m.Sequence, m.VaultID, m.Created, countsText(m.Counts))
	return nil
}

// verifiedBackup verifies a backup whose signer --signer names, or where askVault
// says so one that the vault in place recorded. auditRow is given each row of its log;
// nil: nobody wants them.
func verifiedBackup(ctx context.Context, a *app, o readOptions, file string, askVault bool, auditRow func(vault.AuditRow)) (backup.Manifest, error) {
	cfg, err := a.config(ctx)
	if err != nil {
		return backup.Manifest{}, err
	}
	if err := needIdentities(cfg.Identities); err != nil {
		return backup.Manifest{}, err
	}
	r, err := a.openBackup(ctx, file)
	if err != nil {
		return backup.Manifest{}, err
	}
	defer r.Close()
	var recorded map[string]bool
	if askVault && len(o.signers) == 0 {
		recorded = recordedBackups(ctx, a, cfg)
	}
	opts, err := o.build(a, cfg, recorded)
	if err != nil {
		return backup.Manifest{}, err
	}
	opts.AuditRow = auditRow
	return backup.Verify(ctx, r, opts)
}

func countsText(c backup.Counts) string {
	return fmt.Sprintf("%d nodes, %d SSH keys, %d host keys, %d audit rows", c.Nodes, c.SSHKeys, c.HostKeys, c.AuditLog)
}
