package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
				if !o.picks(row, since) {
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

func (o *auditOptions) picks(row vault.AuditRow, since time.Time) bool {
	return !row.At.Before(since) &&
		(o.node == "" || concerns(row, o.node)) &&
		strings.HasPrefix(row.Action, o.action) &&
		strings.HasPrefix(row.Actor, o.actor)
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
		RunE:    func(cmd *cobra.Command, _ []string) error { return runAuditList(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runAuditList(ctx context.Context, a *app, o auditOptions) error {
	if a.json {
		return runAuditExport(ctx, a, o)
	}
	var rows [][]string
	err := o.each(ctx, a, func(row vault.AuditRow) error {
		rows = append(rows, []string{wire.FormatTime(row.At), row.Actor, row.Via, row.Action, row.Subject, row.Detail})
		return nil
	})
	if err != nil {
		return err
	}
	a.ui.table([]string{"AT", "WHO", "VIA", "ACTION", "SUBJECT", "DETAIL"}, rows, nil)
	return nil
}

func newAuditExport(a *app) *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the audit log as one JSON object a line, with its hashes",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runAuditExport(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runAuditExport(ctx context.Context, a *app, o auditOptions) error {
	return o.each(ctx, a, func(row vault.AuditRow) error { return a.ui.object(row) })
}
