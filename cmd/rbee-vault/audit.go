package main

import (
	"encoding/hex"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newAudit(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Who changed what"}
	cmd.AddCommand(newAuditList(a), newAuditVerify(a))
	return cmd
}

func newAuditList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the audit log, oldest first",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var rows [][]string
			err := a.withRegistry(ctx, func(r *registry.Registry) error {
				return r.Vault().View(ctx, func(tx *vault.Tx) error {
					for row, err := range tx.AuditRows(ctx, 1) {
						if err != nil {
							return err
						}
						if a.json {
							if err := a.ui.object(row); err != nil {
								return err
							}
							continue
						}
						rows = append(rows, []string{vault.FormatTime(row.At), row.Actor, row.Via, row.Action, row.Subject, row.Detail})
					}
					return nil
				})
			})
			if err != nil || a.json {
				return err
			}
			a.ui.table([]string{"AT", "WHO", "VIA", "ACTION", "SUBJECT", "DETAIL"}, rows, nil)
			return nil
		},
	}
}

type auditHeadJSON struct {
	Rows int64  `json:"rows"`
	Hash string `json:"hash"`
}

func newAuditVerify(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Check that no row of the audit log was changed, taken out or put in",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var head vault.AuditHead
			err := a.withRegistry(ctx, func(r *registry.Registry) error {
				return r.Vault().View(ctx, func(tx *vault.Tx) (err error) {
					head, err = tx.VerifyAudit(ctx)
					return err
				})
			})
			if err != nil {
				return err
			}
			hash := hex.EncodeToString(head.Hash[:])
			if a.json {
				return a.ui.object(auditHeadJSON{head.Seq, hash})
			}
			a.ui.printf("ok: %d rows, the last of hash %s\n", head.Seq, hash)
			return nil
		},
	}
}
