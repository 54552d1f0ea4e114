package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// partOptions are the flags of a restore into the vault in place.
type partOptions struct {
	nodes  []string
	merge  bool
	prefer string
	diff   bool
}

// check checks the arguments, and the flags against those of a whole restore.
func (o restoreOptions) check(args []string) error {
	switch {
	case (o.at == "") != (len(args) == 1):
		return usagef("give a FILE, or --at TIME in its place")
	case !o.isPart() && o.prefer != "":
		return usagef("--prefer goes with --node or --merge")
	case o.prefer != "" && o.prefer != string(registry.PreferBackup) && o.prefer != string(registry.PreferLive):
		return usagef("--prefer takes backup or live")
	case o.diff && (o.merge || o.prefer != "" || o.dryRun):
		return usagef("--diff changes nothing, so --merge, --prefer and --dry-run do not go with it")
	case o.merge && len(o.nodes) > 0:
		return usagef("--merge takes every node; --node takes some")
	case o.isPart() && (o.replace || o.noKeyring):
		return usagef("--replace and --no-keyring go with the restore of a whole vault")
	}
	return nil
}

// isPart reports whether the restore goes into the vault in place.
func (o restoreOptions) isPart() bool { return o.merge || o.diff || len(o.nodes) > 0 }

// restorePart restores a part of a backup into the vault in place, or compares the two.
func restorePart(ctx context.Context, a *app, o restoreOptions, from wantedBackup) error {
	cfg, err := a.config(ctx)
	if err != nil {
		return err
	}
	part, err := readPart(ctx, a, cfg, o, from)
	if err != nil {
		if !o.diff && !o.dryRun {
			a.auditRefusal(ctx, cfg, from.name, err)
		}
		return err
	}
	defer part.Wipe()
	return a.withVaultInPlace(ctx, cfg, func(v *vault.Vault) error {
		if o.diff {
			return a.compareWithVault(ctx, v, part.Part)
		}
		return a.mergePart(ctx, v, part, o)
	})
}

func readPart(ctx context.Context, a *app, cfg vault.Config, o restoreOptions, from wantedBackup) (partOfBackup, error) {
	if err := needIdentities(cfg.Identities, true); err != nil {
		return partOfBackup{}, err
	}
	r, err := o.openBackup(ctx, a, from.name)
	if err != nil {
		return partOfBackup{}, err
	}
	defer r.Close()
	read, err := o.build(ctx, a, cfg, true)
	if err != nil {
		return partOfBackup{}, err
	}
	part, err := backup.ReadPart(ctx, r, backup.PartOptions{ReadOptions: from.expect(read, r), Nodes: o.nodes})
	if errors.Is(err, registry.ErrNotFound) {
		err = withHint(err, "See what the backup has: rbee-vault restore FILE --diff")
	}
	return partOfBackup{part, r.source}, err
}

// partOfBackup is a part that was read, and where it was read.
type partOfBackup struct {
	*backup.Part
	source string
}

// withVaultInPlace is withVault where the identities were given for a backup: if they do not
// open the vault, the other unlock methods are tried.
func (a *app) withVaultInPlace(ctx context.Context, cfg vault.Config, fn func(*vault.Vault) error) error {
	v, err := vault.Open(ctx, cfg)
	if errors.Is(err, vault.ErrWrongKey) || errors.Is(err, vault.ErrUnknownKeyID) {
		other := cfg
		other.Identities = nil
		if opened, e := vault.Open(ctx, other); e == nil {
			v, err = opened, nil
		}
	}
	if err != nil {
		return err
	}
	err = fn(v)
	if e := v.Close(); err == nil {
		err = e
	}
	return err
}

// mergePart shows what a merge would do, asks, and does exactly that.
func (a *app) mergePart(ctx context.Context, v *vault.Vault, part partOfBackup, o restoreOptions) error {
	opts := backup.MergeOptions{Prefer: registry.Preference(o.prefer), DryRun: true}
	plan, err := part.Merge(ctx, v, opts)
	if err != nil {
		if errors.Is(err, registry.ErrConflict) {
			a.showMerge(plan)
		}
		return mergeHint(err)
	}
	if !a.json || !o.dryRun {
		a.showMerge(plan)
	}
	if !o.dryRun && plan.Changes() {
		if err := a.ui.confirm(ctx, fmt.Sprintf("Write this into the vault, from backup %d of %s?", part.Manifest.Sequence, part.Manifest.Created)); err != nil {
			return err
		}
		opts.DryRun, opts.Shown = false, &plan
		if plan, err = part.Merge(ctx, v, opts); err != nil {
			return mergeHint(err)
		}
	}
	if a.json {
		return a.ui.object(newMergeJSON(part, plan, o.dryRun))
	}
	a.summarizeMerge(plan, o.dryRun)
	return nil
}

// showMerge shows what a merge does: data on standard output, or with --json text beside it.
func (a *app) showMerge(plan registry.MergeReport) {
	rows := mergeRows(plan)
	if !a.json {
		t := newTable("NODE OR KEY", "ACTION", "FIELD", "BACKUP", "LIVE")
		for _, row := range rows {
			t.row(anys(row)...)
		}
		a.ui.table(t)
		a.ui.out.Flush()
		return
	}
	for _, row := range rows {
		a.ui.info("%s", strings.TrimRight(strings.Join(row, "  "), " "))
	}
}

func mergeRows(plan registry.MergeReport) (rows [][]string) {
	for _, list := range [][]registry.Merged{plan.Nodes, plan.Keys} {
		for _, m := range list {
			if m.Action == registry.MergeSame {
				continue
			}
			if len(m.Differences) == 0 {
				rows = append(rows, []string{m.Name, string(m.Action), m.Removed, "", ""})
			}
			for _, d := range m.Differences {
				rows = append(rows, []string{m.Name, string(m.Action), d.Field, d.Backup, d.Live})
			}
		}
	}
	return rows
}

func (a *app) summarizeMerge(plan registry.MergeReport, dryRun bool) {
	count := func(action registry.MergeAction) int {
		n, _ := plan.Count(action)
		return n
	}
	_, keys := plan.Count(registry.MergeAdd)
	a.ui.info("nodes: %d added, %d replaced, %d kept, %d the same; SSH keys: %d added",
		count(registry.MergeAdd), count(registry.MergeReplace), count(registry.MergeKeep), count(registry.MergeSame), keys)
	switch {
	case !plan.Changes():
		a.ui.info("There was nothing to restore.")
	case dryRun:
		a.ui.info("Nothing was changed: this was a dry run.")
	}
}

// mergeHint adds the next step after a merge that was refused.
func mergeHint(err error) error {
	if missing, ok := errors.AsType[*registry.MissingJumpError](err); ok {
		return withHint(err, "Nothing was changed. Restore that node too (--node %s), or add it first.", missing.Jump)
	}
	if errors.Is(err, registry.ErrInUse) {
		return withHint(err, "Nothing was changed. Finish the rotation first (rbee-vault ssh-key rotate NODE), or leave out the node.")
	}
	return err
}

type mergedNodeJSON struct {
	Name    string                `json:"node_name"`
	Action  registry.MergeAction  `json:"action"`
	Removed *string               `json:"removed"`
	Fields  []registry.Difference `json:"fields"`
}

type mergedKeyJSON struct {
	Fingerprint string               `json:"fingerprint"`
	Action      registry.MergeAction `json:"action"`
	Removed     *string              `json:"removed"`
}

type mergeJSON struct {
	DryRun   bool             `json:"dry_run"`
	Source   string           `json:"source"`
	Nodes    []mergedNodeJSON `json:"nodes"`
	SSHKeys  []mergedKeyJSON  `json:"ssh_keys"`
	Manifest backup.Manifest  `json:"manifest"`
}

func newMergeJSON(part partOfBackup, plan registry.MergeReport, dryRun bool) mergeJSON {
	j := mergeJSON{DryRun: dryRun, Source: part.source, Nodes: []mergedNodeJSON{}, SSHKeys: []mergedKeyJSON{}, Manifest: part.Manifest}
	for _, n := range plan.Nodes {
		j.Nodes = append(j.Nodes, mergedNodeJSON{n.Name, n.Action, wire.Nullable(n.Removed), notNil(n.Differences)})
	}
	for _, k := range plan.Keys {
		j.SSHKeys = append(j.SSHKeys, mergedKeyJSON{k.Name, k.Action, wire.Nullable(k.Removed)})
	}
	return j
}
