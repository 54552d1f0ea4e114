package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

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

Exit 3: the logs part where this vault was restored from an earlier backup of the vault
that made BACKUP, or the other way round. The row of the restore says so, and the vaults
have different ids. Nobody tampered, but what was done after the earlier backup is in one
log only.

"could not check" means that the backup does not open, is not trusted, or is a backup of
a vault with which this one has nothing in common.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAuditVerify(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runAuditVerify(ctx context.Context, a *app, o auditVerifyOptions) error {
	var theirs backupLog
	if o.against != "" {
		var err error
		if theirs.manifest, _, err = verifiedBackup(ctx, a, o.readOptions, o.against, theirs.add); err != nil {
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
			return continues(ctx, tx, head, theirs)
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
		m := theirs.manifest
		a.ui.printf("ok: it continues backup %d of %s, which ended with row %d\n", m.Sequence, m.Created, m.AuditSeq)
	}
	return nil
}
