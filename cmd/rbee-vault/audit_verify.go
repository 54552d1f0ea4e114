package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type auditHeadJSON struct {
	Rows    int64   `json:"rows"`
	Hash    string  `json:"hash"`
	Against *string `json:"against"`
}

type auditVerifyOptions struct {
	readOptions
	against string
}

func (o *auditVerifyOptions) register(cmd *cobra.Command) {
	o.readOptions.register(cmd)
	cmd.Flags().StringVar(&o.against, "against", "", "compare with the backup `FILE`")
}

func newAuditVerify(a *app) *cobra.Command {
	var o auditVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that no row of the audit log, and nothing it describes, was tampered with",
		Long: `Check the hash chain of the audit log: no row was changed, removed or inserted. Check
also that the nodes, keys, host keys, signers and slots are those that the newest row
describes.

The chain alone does not show that the newest rows were removed. --against BACKUP does:
the log must continue the log in that backup. The backup is verified as "backup verify"
does it, with --identity and --signer.

With exit 18, the message begins with one of these:

  tampered   a row does not fit the rows before it
  truncated  the newest rows are gone
  parted     both logs begin in the same way and continue differently: another copy of
             this vault was used, such as an older one that was put back, or somebody
             who has the key rewrote the log from there

"could not check" means that the backup does not open, is not trusted, or is a backup
of another vault. That can be the vault from which this one was restored.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAuditVerify(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runAuditVerify(ctx context.Context, a *app, o auditVerifyOptions) error {
	var m backup.Manifest
	var theirs [][32]byte // the hashes of the backup's rows, from row 1 on
	if o.against != "" {
		var err error
		if m, _, err = verifiedBackup(ctx, a, o.readOptions, o.against, true, func(row vault.AuditRow) { theirs = append(theirs, row.Hash) }); err != nil {
			return fmt.Errorf("could not check: %w", err)
		}
	}
	var head vault.AuditHead
	err := a.withVault(ctx, func(v *vault.Vault) error {
		// An old page of an index hides a row from a look-up, but not from a scan of the
		// table. So the pages are checked too.
		if err := v.CheckPages(ctx); err != nil {
			return err
		}
		return v.View(ctx, func(tx *vault.Tx) (err error) {
			if head, err = tx.VerifyAudit(ctx); err != nil {
				return fmt.Errorf("tampered: %w", err)
			}
			if err := tx.VerifyContent(ctx); err != nil {
				return fmt.Errorf("tampered: %w", err)
			}
			if o.against == "" {
				return nil
			}
			return continues(ctx, tx, head, m, theirs)
		})
	})
	if err != nil {
		return err
	}
	j := auditHeadJSON{head.Seq, hex.EncodeToString(head.Hash[:]), wire.Nullable(o.against)}
	if a.json {
		return a.ui.object(j)
	}
	a.ui.printf("ok: %d rows, the last with hash %s\n", j.Rows, j.Hash)
	if o.against != "" {
		a.ui.printf("ok: it continues backup %d of %s, which ended with row %d\n", m.Sequence, m.Created, m.AuditSeq)
	}
	return nil
}

// continues checks that the log continues the log in a backup. The chain of both is good.
func continues(ctx context.Context, tx *vault.Tx, head vault.AuditHead, m backup.Manifest, theirs [][32]byte) error {
	meta, err := tx.Meta(ctx)
	if err != nil {
		return err
	}
	if m.VaultID != meta.VaultID && m.VaultID != meta.OriginVaultID {
		return fmt.Errorf("could not check: %w: the backup is of vault %s, this is vault %s", vault.ErrInvalid, m.VaultID, meta.VaultID)
	}
	var common int64 // the number of equal rows at the beginning
	var ours vault.AuditRow
	for row, err := range tx.AuditRows(ctx, 1) {
		if err != nil {
			return err
		}
		if ours = row; row.Seq > m.AuditSeq || row.Hash != theirs[row.Seq-1] {
			break
		}
		common = row.Seq
	}
	switch {
	case common == m.AuditSeq:
		return nil
	case common == head.Seq:
		return fmt.Errorf("truncated: %w: the log ends with row %d, the log in the backup with row %d", vault.ErrAudit, head.Seq, m.AuditSeq)
	case common == 0:
		return fmt.Errorf("tampered: %w: the log and the backup have no row in common", vault.ErrAudit)
	case m.VaultID == meta.OriginVaultID && ours.Action == string(vault.ActionRestore):
		return fmt.Errorf("could not check: %w: this vault was restored from an earlier backup of vault %s, and has its own rows since row %d", vault.ErrInvalid, m.VaultID, ours.Seq)
	}
	return withHint(fmt.Errorf("parted: %w: row %d differs from the backup; up to row %d both are the same", vault.ErrAudit, common+1, common),
		"Another copy of this vault was used from there on, or somebody who has its key rewrote the log. See what was done: rbee-vault audit list")
}
