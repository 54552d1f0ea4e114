package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newAudit(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Who changed what"}
	cmd.AddCommand(newAuditList(a), newAuditExport(a), newAuditVerify(a))
	return cmd
}

// auditOptions pick rows of the audit log.
type auditOptions struct {
	since  string
	node   string
	action string
	actor  string
	limit  int
}

func (o *auditOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.since, "since", "", "rows since `WHEN`: how long ago (90m, 36h, 7d), a day (2006-01-02) or a time (RFC 3339)")
	f.StringVar(&o.node, "node", "", "rows about the node `NAME`")
	f.StringVar(&o.action, "action", "", "rows of the `ACTION`, such as node.add; a beginning such as ssh-key. does")
	f.StringVar(&o.actor, "actor", "", "rows of whom `WHO` begins")
	f.IntVar(&o.limit, "limit", 0, "the newest `N` of them")
}

// parseSince parses --since.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := registry.ParseAge(text); err == nil {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: --since reads 90m, 36h, 7d, 2006-01-02 or 2006-01-02T15:04:05Z", vault.ErrInvalid)
}

// rows returns those that are picked, oldest first.
func (o *auditOptions) rows(ctx context.Context, a *app) ([]vault.AuditRow, error) {
	since, err := parseSince(o.since, a.now())
	if err != nil {
		return nil, err
	}
	if o.limit < 0 {
		return nil, fmt.Errorf("%w: --limit is a count", vault.ErrInvalid)
	}
	var picked []vault.AuditRow
	err = a.withVault(ctx, func(v *vault.Vault) error {
		return v.View(ctx, func(tx *vault.Tx) error {
			for row, err := range tx.AuditRows(ctx, 1) {
				if err != nil {
					return err
				}
				if row.At.Before(since) || o.node != "" && !concerns(row, o.node) ||
					!strings.HasPrefix(row.Action, o.action) || !strings.HasPrefix(row.Actor, o.actor) {
					continue
				}
				picked = append(picked, row)
				if o.limit > 0 && len(picked) > o.limit {
					picked = picked[1:]
				}
			}
			return nil
		})
	})
	return picked, err
}

// concerns reports whether a row is about a node, as is the use of its SSH key, whose
// subject is the key.
func concerns(row vault.AuditRow, node string) bool {
	return row.Subject == node || row.Action == registry.ActionUseSSHKey && row.Detail == node
}

func newAuditList(a *app) *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the audit log, oldest first",
		Example: `  rbee-vault audit list --since 7d --action ssh-key.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			picked, err := o.rows(cmd.Context(), a)
			if err != nil {
				return err
			}
			if a.json {
				return objects(a.ui, picked)
			}
			var rows [][]string
			for _, row := range picked {
				rows = append(rows, []string{vault.FormatTime(row.At), row.Actor, row.Via, row.Action, row.Subject, row.Detail})
			}
			a.ui.table([]string{"AT", "WHO", "VIA", "ACTION", "SUBJECT", "DETAIL"}, rows, nil)
			return nil
		},
	}
	o.register(cmd)
	return cmd
}

func newAuditExport(a *app) *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the audit log as one JSON object a line, with its hashes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			picked, err := o.rows(cmd.Context(), a)
			if err != nil {
				return err
			}
			return objects(a.ui, picked)
		},
	}
	o.register(cmd)
	return cmd
}

type auditHeadJSON struct {
	Rows    int64   `json:"rows"`
	Hash    string  `json:"hash"`
	Against *string `json:"against"`
}

func newAuditVerify(a *app) *cobra.Command {
	var o readOptions
	var against string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that no row was changed, taken out or put in, in the audit log and beside it",
		Long: `Check the chain of the audit log: no row was changed, taken out or put in; and that
nodes, keys, host keys, signers and slots are those that its newest row tells of. What the
chain alone cannot tell is that its newest rows are gone. --against BACKUP tells: the
log must go on where that backup's ended. The backup is verified as by backup verify,
with --identity and --signer.

It says "tampered", "truncated" (exit 18, both) and "could not check" (the backup does
not open, is not trusted, or is another vault's) apart.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAuditVerify(cmd.Context(), a, o, against) },
	}
	cmd.Flags().StringVar(&against, "against", "", "compare with the backup `FILE`")
	o.register(cmd)
	return cmd
}

func runAuditVerify(ctx context.Context, a *app, o readOptions, against string) error {
	var m backup.Manifest
	if against != "" {
		var err error
		if m, err = verifiedBackup(ctx, a, o, against, true); err != nil {
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
			if against == "" {
				return nil
			}
			return continues(ctx, tx, head, m)
		})
	})
	if err != nil {
		return err
	}
	j := auditHeadJSON{Rows: head.Seq, Hash: hex.EncodeToString(head.Hash[:])}
	if against != "" {
		j.Against = &against
	}
	if a.json {
		return a.ui.object(j)
	}
	a.ui.printf("ok: %d rows, the last of hash %s\n", j.Rows, j.Hash)
	if against != "" {
		a.ui.printf("ok: it goes on where backup %d of %s ended, with row %d\n", m.Sequence, m.Created, m.AuditSeq)
	}
	return nil
}

// continues checks that the log, whose chain holds, goes on where a backup's ended.
func continues(ctx context.Context, tx *vault.Tx, head vault.AuditHead, m backup.Manifest) error {
	meta, err := tx.Meta(ctx)
	if err != nil {
		return err
	}
	if m.VaultID != meta.VaultID && m.VaultID != meta.OriginVaultID {
		return fmt.Errorf("could not check: %w: the backup is of vault %s, this is %s", vault.ErrInvalid, m.VaultID, meta.VaultID)
	}
	if head.Seq < m.AuditSeq {
		return fmt.Errorf("truncated: %w: it ends with row %d, the backup's with row %d", vault.ErrAudit, head.Seq, m.AuditSeq)
	}
	for row, err := range tx.AuditRows(ctx, m.AuditSeq) {
		if err != nil {
			return err
		}
		if row.Seq == m.AuditSeq && hex.EncodeToString(row.Hash[:]) == m.AuditHash {
			return nil
		}
		break
	}
	return fmt.Errorf("tampered: %w: row %d is not the one that the backup ends with", vault.ErrAudit, m.AuditSeq)
}
