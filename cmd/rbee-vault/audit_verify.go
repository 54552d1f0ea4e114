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
		Short: "Check that no row was changed, taken out or put in, in the audit log and beside it",
		Long: `Check the chain of the audit log: no row was changed, taken out or put in; and that
nodes, keys, host keys, signers and slots are those that its newest row tells of. What the
chain alone cannot tell is that its newest rows are gone. --against BACKUP tells: the
log must go on where that backup's ended. The backup is verified as by backup verify,
with --identity and --signer.

It tells apart, with exit 18: "tampered", a row that does not fit the rows before it;
"truncated", where the newest rows are gone; and "parted", where both logs have the
same beginning and go on differently: another copy of this vault went on, such as an
older one that was put back, or somebody who has the key wrote the log anew from there.
"could not check": the backup does not open, is not trusted, or is another vault's, of
which this one was restored before or never.`,
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
		if m, err = verifiedBackup(ctx, a, o.readOptions, o.against, true, func(row vault.AuditRow) { theirs = append(theirs, row.Hash) }); err != nil {
			return fmt.Errorf("could not check: %w", err)
		}
	}
	var head vault.AuditHead
	err := a.withVault(ctx, func(v *vault.Vault) error {
		// An older page of an index hides a row from who looks it up, and not from who
		// reads the table: so the pages are checked as well.
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
	a.ui.printf("ok: %d rows, the last of hash %s\n", j.Rows, j.Hash)
	if o.against != "" {
		a.ui.printf("ok: it goes on where backup %d of %s ended, with row %d\n", m.Sequence, m.Created, m.AuditSeq)
	}
	return nil
}

// continues checks that the log, whose chain holds, goes on where a backup's ended.
func continues(ctx context.Context, tx *vault.Tx, head vault.AuditHead, m backup.Manifest, theirs [][32]byte) error {
	meta, err := tx.Meta(ctx)
	if err != nil {
		return err
	}
	if m.VaultID != meta.VaultID && m.VaultID != meta.OriginVaultID {
		return fmt.Errorf("could not check: %w: the backup is of vault %s, this is %s", vault.ErrInvalid, m.VaultID, meta.VaultID)
	}
	var common int64 // rows that both have
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
		return fmt.Errorf("truncated: %w: it ends with row %d, the backup's with row %d", vault.ErrAudit, head.Seq, m.AuditSeq)
	case common == 0:
		return fmt.Errorf("tampered: %w: no row of it is in the backup", vault.ErrAudit)
	case m.VaultID == meta.OriginVaultID && ours.Action == "vault.restore":
		return fmt.Errorf("could not check: %w: this vault was restored from an earlier backup of vault %s, and has gone its own way since row %d", vault.ErrInvalid, m.VaultID, ours.Seq)
	}
	return withHint(fmt.Errorf("parted: %w: row %d is another one in the backup; up to row %d they are the same", vault.ErrAudit, common+1, common),
		"Another copy of this vault went on from there, or somebody who has its key wrote the log anew. See what it did: rbee-vault audit list")
}
