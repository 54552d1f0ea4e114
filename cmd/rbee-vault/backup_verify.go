package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// backupArgument explains the argument of the commands that read a backup.
const backupArgument = `BACKUP is a file or '-', an object of one of the vault's targets (NAME/OBJECT), or NAME for the
newest one there. Without the vault it is s3://BUCKET/PREFIX, or s3://BUCKET/PREFIX/OBJECT; the
credential is the machine's own, as the AWS tools find it. ?versionId=ID after an object
chooses a version of it.`

func newBackupVerify(a *app) *cobra.Command {
	var o readOptions
	cmd := &cobra.Command{
		Use:   "verify BACKUP",
		Short: "Check a backup as a restore does, without writing anything",
		Long: `Check a whole backup: encryption, signature, signer, checksums, counts, and the hash
chain of the audit log. The backup opens with --identity.

` + backupArgument + `

It is trusted if the vault in place has recorded it, or if --signer names its signer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runBackupVerify(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	return cmd
}

type verifiedJSON struct {
	Manifest backup.Manifest `json:"manifest"`
	Signer   string          `json:"signer"`
	Source   string          `json:"source"`
}

func runBackupVerify(ctx context.Context, a *app, o readOptions, file string) error {
	sums := ""
	o.seen = func(c backup.Claim) { sums = c.SumsSHA256 }
	m, source, err := verifiedBackup(ctx, a, o, file, nil)
	if err != nil {
		return err
	}
	a.recordVerified(ctx, sums)
	if a.json {
		return a.ui.object(verifiedJSON{m, m.SignerFingerprint(), source})
	}
	a.ui.printf("ok: backup %d of vault %s, %s: %s\n", m.Sequence, m.VaultID, m.Created, countsText(m.Counts))
	return nil
}

// recordVerified has the vault in place record that its backup was read to its end and is good.
// A vault that does not open, or has not recorded that backup, records nothing.
func (a *app) recordVerified(ctx context.Context, sums string) {
	cfg, err := a.config(ctx)
	if err == nil {
		cfg.Logger, cfg.ConfirmSigner = nil, nil
		var v *vault.Vault
		if v, err = vault.Open(ctx, cfg); err == nil {
			_, err = backup.MarkVerified(ctx, v, sums)
			v.Close()
		}
	}
	if err != nil {
		a.ui.logger().Debug("no vault records that the backup was verified", "reason", err)
	}
}

// verifiedBackup verifies a backup and returns its manifest, and where it is. The vault in
// place vouches for what it recorded. auditRow, if not nil, is called with each row of the
// audit log in the backup.
func verifiedBackup(ctx context.Context, a *app, o readOptions, file string, auditRow func(vault.AuditRow)) (m backup.Manifest, source string, err error) {
	cfg, err := a.config(ctx)
	if err != nil {
		return m, "", err
	}
	if err := needIdentities(cfg.Identities, false); err != nil {
		return m, "", err
	}
	r, err := o.openBackup(ctx, a, file)
	if err != nil {
		return m, "", err
	}
	defer r.Close()
	opts, err := o.build(ctx, a, cfg, true)
	if err != nil {
		return m, r.source, err
	}
	opts.AuditRow = auditRow
	if trust := opts.Trust; o.seen != nil {
		opts.Trust = func(ctx context.Context, c backup.Claim) error {
			o.seen(c)
			return trust(ctx, c)
		}
	}
	m, err = backup.Verify(ctx, r, wantedBackup{}.expect(opts, r))
	return m, r.source, err
}

// readOptions are the flags of every command that reads a backup.
type readOptions struct {
	storeOptions
	signers         []string
	acceptSuccessor bool
	vault           *vault.Vault       // the one in place, if it is open; nil: it is opened where it is needed
	seen            func(backup.Claim) // is told what the backup claims, before it is trusted; nil: nobody
}

func (o *readOptions) register(cmd *cobra.Command) {
	o.storeOptions.register(cmd)
	cmd.Flags().StringArrayVar(&o.signers, "signer", nil, "trust a backup whose signer has this `FINGERPRINT` (SHA256:... from the sheet, or the file of the sheet); repeatable")
	cmd.Flags().BoolVar(&o.acceptSuccessor, "accept-successor", false, "also trust a signer that the one given certified, directly or through others")
}

// build returns the options for the backup package. Without --signer, and if askVault is
// true, the backups that the vault in place has recorded are trusted.
func (o readOptions) build(ctx context.Context, a *app, cfg vault.Config, askVault bool) (backup.ReadOptions, error) {
	var recorded map[string]bool
	if askVault && len(o.signers) == 0 {
		recorded = recordedBackups(ctx, a, cfg)
	}
	var signers []string
	for _, s := range o.signers {
		signer, err := parseSigner(s)
		if err != nil {
			return backup.ReadOptions{}, err
		}
		signers = append(signers, signer)
	}
	return backup.ReadOptions{Identities: cfg.Identities, Trust: func(ctx context.Context, c backup.Claim) error {
		if len(signers) == 0 && recorded[c.SumsSHA256] {
			return nil
		}
		if len(signers) == 0 {
			signer, err := a.askSigner(ctx, c)
			if err != nil {
				return err
			}
			signers = []string{signer}
		}
		err := backup.TrustSigners(signers...)(ctx, c)
		if errors.Is(err, backup.ErrSuccessor) && o.acceptSuccessor {
			a.ui.warn("the backup's signer is %s, a successor of the signer given", c.Signer)
			return nil
		}
		return err
	}}, nil
}

// askSigner asks the operator for the fingerprint of a backup's signer.
func (a *app) askSigner(ctx context.Context, c backup.Claim) (string, error) {
	if !a.interactive() {
		return "", fmt.Errorf("%w: nothing vouches for its signer, %s", backup.ErrUntrusted, c.Signer)
	}
	for attempt := 1; ; attempt++ {
		answer, err := a.ui.ask(ctx, "Fingerprint of the signer on your sheet (SHA256:...): ")
		if err != nil {
			return "", err
		}
		fingerprint, err := checkFingerprint(answer)
		if err == nil || attempt == 3 {
			return fingerprint, err
		}
		a.ui.say("A fingerprint is SHA256: and 43 characters; this has %d.", len(strings.TrimPrefix(answer, "SHA256:")))
	}
}

// recordedBackups returns the SHA-256 of the SHA256SUMS of each backup that the vault in
// place has recorded. If that vault does not open, there are none.
func recordedBackups(ctx context.Context, a *app, cfg vault.Config) map[string]bool {
	cfg.Logger, cfg.ConfirmSigner = nil, nil
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		a.ui.logger().Debug("the vault in place vouches for no backup", "reason", err)
		return nil
	}
	defer v.Close()
	records, err := backup.List(ctx, v)
	if err != nil {
		return nil
	}
	sums := map[string]bool{}
	for _, r := range records {
		if r.Completed() {
			sums[r.SumsSHA256] = true
		}
	}
	return sums
}

// needIdentities returns an error if no identity was given. It is called before a backup
// is read, which may be long. typed says that the command also takes one that is typed.
func needIdentities(identities []age.Identity, typed bool) error {
	if len(identities) > 0 {
		return nil
	}
	fromPaper := ""
	if typed {
		fromPaper = " To type it from the recovery sheet: --sheet"
	}
	return withHint(fmt.Errorf("%w: a backup opens with an identity only", vault.ErrNoUnlockMethod),
		"Give the recovery identity or a recipient's: --identity FILE. A passphrase opens the vault that was backed up, not the backup.%s", fromPaper)
}

func countsText(c backup.Counts) string {
	return fmt.Sprintf("%d nodes, %d SSH keys, %d host keys, %d audit rows", c.Nodes, c.SSHKeys, c.HostKeys, c.AuditLog)
}
