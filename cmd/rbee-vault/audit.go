package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newAudit(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "The audit log: who changed what"}
	cmd.AddCommand(newAuditList(a), newAuditExport(a), newAuditVerify(a))
	return cmd
}

// auditOptions are the flags that select rows of the audit log.
type auditOptions struct {
	since  string
	node   string
	action string
	actor  string
	limit  int
}

func (o *auditOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.since, "since", "", "only rows since `WHEN`: an age (90m, 36h, 7d), a day (2006-01-02) or a time (RFC 3339)")
	f.StringVar(&o.node, "node", "", "only rows about the node `NAME`")
	f.StringVar(&o.action, "action", "", "only rows whose action begins with `ACTION`, such as node.add or ssh-key.")
	f.StringVar(&o.actor, "actor", "", "only rows whose user or person begins with `WHO`")
	f.IntVar(&o.limit, "limit", 0, "only the newest `N` rows")
}

// parseMoment parses the value of a flag that takes a time, or how long ago it was.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if ago, err := registry.ParseAge(text); err == nil {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: --%s must be like 90m, 36h, 7d, 2006-01-02 or 2006-01-02T15:04:05Z", vault.ErrInvalid, flag)
}

// each calls use with each selected row, oldest first. With --limit it holds that many
// rows in memory, else one.
func (o *auditOptions) each(ctx context.Context, a *app, use func(vault.AuditRow) error) error {
	var since time.Time
	if o.since != "" {
		var err error
		if since, err = parseMoment("since", o.since, a.now()); err != nil {
			return err
		}
	}
	if o.limit < 0 {
		return fmt.Errorf("%w: --limit must not be negative", vault.ErrInvalid)
	}
	var newest []vault.AuditRow // a ring buffer of --limit rows
	picked := 0
	err := a.withVault(ctx, func(v *vault.Vault) error {
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

// picks reports whether the flags select a row.
func (o *auditOptions) picks(row vault.AuditRow, since time.Time) bool {
	return !row.At.Before(since) &&
		(o.node == "" || concerns(row, o.node)) &&
		strings.HasPrefix(row.Action, o.action) &&
		hasActor(row.Actor, o.actor)
}

// hasActor reports whether the user of the machine or the person in an actor, as in "ops(1000)@desk,
// ops@example.org (by slot 1a2b)", begins so.
func hasActor(actor, who string) bool {
	return strings.HasPrefix(actor, who) || slices.ContainsFunc(strings.Split(actor, ", "), func(part string) bool { return strings.HasPrefix(part, who) })
}

// concerns reports whether a row is about a node. The action decides: the subject of
// another row is a number, a file or a key, and a node may have the same name.
func concerns(row vault.AuditRow, node string) bool {
	switch vault.Action(row.Action) {
	case registry.ActionUseSSHKey: // the subject is a key, the detail a node
		return row.Detail == node
	case registry.ActionSignSSHKey:
		return slices.Contains(registry.SignedNodes(row.Detail), node)
	case registry.ActionImportNodes:
		return false // the subject is a file; each node has a row of its own
	case registry.ActionRenameNode:
		return row.Subject == node || strings.HasSuffix(row.Detail, " -> "+strconv.Quote(node))
	case registry.ActionAssignSSHKey:
		return row.Subject == node
	}
	kind, _, _ := strings.Cut(row.Action, ".")
	return (kind == "node" || kind == "host-key") && row.Subject == node
}

type auditListOptions struct {
	auditOptions
	tableOptions
}

func newAuditList(a *app) *cobra.Command {
	var o auditListOptions
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the audit log, oldest first",
		Example: `  rbee-vault audit list --since 7d --action ssh-key.`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runAuditList(cmd.Context(), a, o) },
	}
	o.auditOptions.register(cmd)
	o.tableOptions.register(cmd, auditHeaders...)
	return cmd
}

var auditHeaders = []string{"AT", "WHO", "VIA", "ACTION", "SUBJECT", "DETAIL"}

func runAuditList(ctx context.Context, a *app, o auditListOptions) error {
	t, err := o.table(auditHeaders)
	if err != nil {
		return err
	}
	if a.json {
		return runAuditExport(ctx, a, o.auditOptions)
	}
	t.dropFirst(o.tableOptions, "VIA")
	err = o.each(ctx, a, func(row vault.AuditRow) error {
		t.row(wire.FormatTime(row.At), row.Actor, row.Via, row.Action, row.Subject, row.Detail)
		return nil
	})
	if err != nil {
		return err
	}
	if len(t.rows) == 0 {
		a.ui.info("No row matches.")
	}
	a.ui.table(t)
	return nil
}

func newAuditExport(a *app) *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the audit log as JSON lines, one row each, with its hashes",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runAuditExport(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runAuditExport(ctx context.Context, a *app, o auditOptions) error {
	return o.each(ctx, a, func(row vault.AuditRow) error { return a.ui.object(row) })
}
