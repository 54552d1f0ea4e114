package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
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

// each gives use the rows that are picked, oldest first. It holds no more of them
// than --limit says.
func (o *auditOptions) each(ctx context.Context, a *app, use func(vault.AuditRow) error) error {
	since, err := parseSince(o.since, a.now())
	if err != nil {
		return err
	}
	if o.limit < 0 {
		return fmt.Errorf("%w: --limit is a count", vault.ErrInvalid)
	}
	var newest []vault.AuditRow // a ring, where there is a limit
	picked := 0
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
				switch picked++; {
				case o.limit == 0:
					if err := use(row); err != nil {
						return err
					}
				case len(newest) < o.limit:
					newest = append(newest, row)
				default:
					newest[(picked-1)%o.limit] = row
				}
			}
			return nil
		})
	})
	for i := range newest {
		if err == nil {
			err = use(newest[(picked+i)%len(newest)])
		}
	}
	return err
}

// concerns reports whether a row is about a node. Subjects of other rows are numbers,
// files and keys, and a node may have the name of any of these.
func concerns(row vault.AuditRow, node string) bool {
	switch row.Action {
	case registry.ActionUseSSHKey: // of a key, for a node
		return row.Detail == node
	case "node.import":
		return false // of a file; its nodes have rows of their own
	case "node.rename":
		return row.Subject == node || strings.HasSuffix(row.Detail, " -> "+strconv.Quote(node))
	case "ssh-key.assign":
		return row.Subject == node
	}
	kind, _, _ := strings.Cut(row.Action, ".")
	return (kind == "node" || kind == "host-key") && row.Subject == node
}

func newAuditList(a *app) *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the audit log, oldest first",
		Example: `  rbee-vault audit list --since 7d --action ssh-key.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.json {
				return o.each(cmd.Context(), a, func(row vault.AuditRow) error { return a.ui.object(row) })
			}
			var rows [][]string
			err := o.each(cmd.Context(), a, func(row vault.AuditRow) error {
				rows = append(rows, []string{wire.FormatTime(row.At), row.Actor, row.Via, row.Action, row.Subject, row.Detail})
				return nil
			})
			if err != nil {
				return err
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
			return o.each(cmd.Context(), a, func(row vault.AuditRow) error { return a.ui.object(row) })
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

It tells apart, with exit 18: "tampered", a row that does not fit the rows before it;
"truncated", where the newest rows are gone; and "parted", where both logs have the
same beginning and go on differently: another copy of this vault went on, such as an
older one that was put back, or somebody who has the key wrote the log anew from there.
"could not check": the backup does not open, is not trusted, or is another vault's, of
which this one was restored before or never.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAuditVerify(cmd.Context(), a, o, against) },
	}
	cmd.Flags().StringVar(&against, "against", "", "compare with the backup `FILE`")
	o.register(cmd)
	return cmd
}

func runAuditVerify(ctx context.Context, a *app, o readOptions, against string) error {
	var m backup.Manifest
	var theirs [][32]byte // the hashes of the backup's rows, from row 1 on
	if against != "" {
		var err error
		if m, err = verifiedBackup(ctx, a, o, against, true, func(row vault.AuditRow) { theirs = append(theirs, row.Hash) }); err != nil {
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
			return continues(ctx, tx, head, m, theirs)
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
