package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Problem is something in an import that a person should know.
type Problem struct {
	Row    string // the node's name; where that is no name, which row it is
	Reason string
}

// ImportSet is what was read from elsewhere.
type ImportSet struct {
	Nodes    []Node    // to be imported
	Skipped  []Problem // rows that are no node
	Warnings []Problem // what a node lost on the way
	// Keys are sealed in with the nodes of these names, which then use them. The
	// caller wipes them.
	Keys map[string]*PrivateKey
}

// ImportOptions say how to import.
type ImportOptions struct {
	// Source names where the nodes come from, for the audit log.
	Source string
	// Replace lets a node take the place of one of the same name, as AddNode
	// does.
	Replace bool
	// DryRun only tells what would happen.
	DryRun bool
}

// ImportReport is what Import did, or would do. Names are in the order of the
// set.
type ImportReport struct {
	Added     []string
	Replaced  []string
	Unchanged []string  // already there, just so
	Skipped   []Problem // those of the set, then nodes that are not valid or come twice
	Warnings  []Problem // those of the set
	Keys      []string  // nodes whose key of the set is in the vault now
}

// Import adds the nodes of a set in one transaction. Without Replace a single
// name that is taken fails the whole import: the error is ErrExists and names
// all of them. After any error nothing is imported and the report is empty.
func (r *Registry) Import(ctx context.Context, set ImportSet, opts ImportOptions) (ImportReport, error) {
	var (
		report ImportReport
		err    error
	)
	if opts.DryRun {
		err = r.v.View(ctx, func(tx *vault.Tx) (err error) {
			report, _, err = planImport(ctx, tx, set, opts)
			return err
		})
	} else {
		err = r.v.Update(ctx, func(tx *vault.Tx) (err error) {
			report, err = importNodes(ctx, tx, set, opts)
			return err
		})
	}
	if err != nil {
		return ImportReport{}, fmt.Errorf("import nodes: %w", err)
	}
	return report, nil
}

// importWrite is a node to be written, over old if that has a name.
type importWrite struct {
	node, old Node
}

func importNodes(ctx context.Context, tx *vault.Tx, set ImportSet, opts ImportOptions) (ImportReport, error) {
	report, writes, err := planImport(ctx, tx, set, opts)
	if err != nil || len(writes)+len(report.Keys) == 0 {
		return report, err
	}
	for _, w := range writes {
		if w.old.Name == "" {
			err = createNode(ctx, tx, w.node)
		} else {
			err = replaceNode(ctx, tx, w.old, w.node, "node.update")
		}
		if err != nil {
			return ImportReport{}, fmt.Errorf("node %q: %w", w.node.Name, err)
		}
	}
	for _, name := range report.Keys {
		if err := useKey(ctx, tx, set.Keys[name], name); err != nil {
			return ImportReport{}, fmt.Errorf("SSH key of node %q: %w", name, err)
		}
	}
	detail := fmt.Sprintf("added %d; replaced %d; unchanged %d; skipped %d",
		len(report.Added), len(report.Replaced), len(report.Unchanged), len(report.Skipped))
	if len(report.Keys) > 0 {
		detail += fmt.Sprintf("; keys %d", len(report.Keys))
	}
	return report, tx.Audit(ctx, vault.Event{Action: "node.import", Subject: opts.Source, Detail: detail})
}

// planImport decides about every node and writes nothing.
func planImport(ctx context.Context, tx *vault.Tx, set ImportSet, opts ImportOptions) (ImportReport, []importWrite, error) {
	report := ImportReport{
		Skipped:  append([]Problem(nil), set.Skipped...),
		Warnings: append([]Problem(nil), set.Warnings...),
	}
	var (
		writes []importWrite
		taken  []string
	)
	seen := make(map[string]bool, len(set.Nodes))
	for i, n := range set.Nodes {
		n = n.normalized()
		if err := n.validate(); err != nil {
			report.Skipped = append(report.Skipped, Problem{rowName(n.Name, fmt.Sprintf("node %d", i+1)), err.Error()})
			continue
		}
		if seen[n.Name] {
			report.Skipped = append(report.Skipped, Problem{n.Name, "comes twice"})
			continue
		}
		seen[n.Name] = true
		old, err := selectNode(ctx, tx, n.Name)
		switch {
		case errors.Is(err, ErrNotFound):
			report.Added = append(report.Added, n.Name)
			writes = append(writes, importWrite{node: n})
			continue
		case err != nil:
			return ImportReport{}, nil, err
		case !opts.Replace:
			taken = append(taken, quote(n.Name))
			continue
		}
		n = n.withState(old)
		if sameNode(old, n) {
			report.Unchanged = append(report.Unchanged, n.Name)
			continue
		}
		report.Replaced = append(report.Replaced, n.Name)
		writes = append(writes, importWrite{node: n, old: old})
	}
	if len(taken) > 0 {
		return ImportReport{}, nil, fmt.Errorf("%s: %w", strings.Join(taken, ", "), ErrExists)
	}
	for _, n := range set.Nodes { // in the order of the set
		if set.Keys[n.Name] != nil && seen[n.Name] && !slices.Contains(report.Keys, n.Name) {
			report.Keys = append(report.Keys, n.Name)
		}
	}
	return report, writes, nil
}

// rowName names a row in a report: by its name, quoted where that is no name for
// a node, or by the other way where it cannot be shown.
func rowName(name, other string) string {
	switch {
	case ruleName(name) == "":
		return name
	case name != "" && len(name) <= 256 && strconv.Quote(name) == `"`+name+`"`:
		return strconv.Quote(name)
	}
	return other
}
