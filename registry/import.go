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
	Skipped  []Problem // rows that are no node: the first hundred
	Warnings []Problem // what a node lost on the way: the first hundred
	// More counts the problems that neither list holds.
	More More
	// Keys are sealed in with the nodes of these names, which then use them. The
	// caller wipes them.
	Keys map[string]*PrivateKey
}

// MaxImport is how many rows one import takes, those that are no node included.
const MaxImport = 100_000

// maxProblems is how many problems of each kind are told one by one.
const maxProblems = 100

// More counts problems that are not told one by one.
type More struct {
	Skipped  int
	Warnings int
}

func (set *ImportSet) skip(p Problem) {
	set.Skipped, set.More.Skipped = addProblem(set.Skipped, set.More.Skipped, p)
}

func (set *ImportSet) warn(p Problem) {
	set.Warnings, set.More.Warnings = addProblem(set.Warnings, set.More.Warnings, p)
}

// addProblem adds a problem to the list, or counts it where the list is full.
func addProblem(list []Problem, more int, p Problem) ([]Problem, int) {
	if len(list) >= maxProblems {
		return list, more + 1
	}
	return append(list, p), more
}

// room is an error where one more row is too many.
func (set *ImportSet) room() error {
	if len(set.Nodes)+len(set.Skipped)+set.More.Skipped >= MaxImport {
		return fmt.Errorf("%w: more than %d rows", ErrInvalid, MaxImport)
	}
	return nil
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
	Skipped   []Problem // those of the set, then nodes that are not valid or come twice: the first hundred
	Warnings  []Problem // those of the set
	More      More      // problems that neither list holds
	Keys      []string  // nodes whose key of the set is in the vault now
}

// Import adds the nodes of a set in one transaction. Without Replace a single
// name that is taken fails the whole import: the error is ErrExists and names
// all of them. After any error nothing is imported and the report is empty. Where
// there is nothing to change, nothing is written, not even to the audit log.
func (r *Registry) Import(ctx context.Context, set ImportSet, opts ImportOptions) (ImportReport, error) {
	var (
		report ImportReport
		plan   importPlan
		err    error
	)
	if opts.DryRun || opts.Replace {
		err = r.v.View(ctx, func(tx *vault.Tx) (err error) {
			report, plan, err = planImport(ctx, tx, set, opts)
			return err
		})
	}
	// Without Replace, what is there already is an error: there is no need to look first.
	if err == nil && !opts.DryRun && !(opts.Replace && plan.empty()) {
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

// importPlan is what an import has to write.
type importPlan struct {
	nodes []importWrite
	keys  []string // nodes that are to use the key of the set, and do not yet
}

func (p importPlan) empty() bool { return len(p.nodes)+len(p.keys) == 0 }

// importWrite is a node to be written, over old if that has a name.
type importWrite struct {
	node, old Node
}

func importNodes(ctx context.Context, tx *vault.Tx, set ImportSet, opts ImportOptions) (ImportReport, error) {
	report, plan, err := planImport(ctx, tx, set, opts)
	if err != nil || plan.empty() {
		return report, err
	}
	for _, w := range plan.nodes {
		if w.old.Name == "" {
			err = createNode(ctx, tx, w.node)
		} else {
			err = replaceNode(ctx, tx, w.old, w.node, "node.update")
		}
		if err != nil {
			return ImportReport{}, fmt.Errorf("node %q: %w", w.node.Name, err)
		}
	}
	for _, name := range plan.keys {
		if err := useKey(ctx, tx, set.Keys[name], name); err != nil {
			return ImportReport{}, fmt.Errorf("SSH key of node %q: %w", name, err)
		}
	}
	detail := fmt.Sprintf("added %d; replaced %d; unchanged %d; skipped %d",
		len(report.Added), len(report.Replaced), len(report.Unchanged), len(report.Skipped)+report.More.Skipped)
	if len(plan.keys) > 0 {
		detail += fmt.Sprintf("; keys %d", len(plan.keys))
	}
	return report, tx.Audit(ctx, vault.Event{Action: "node.import", Subject: opts.Source, Detail: detail})
}

// planImport decides about every node and writes nothing.
func planImport(ctx context.Context, tx *vault.Tx, set ImportSet, opts ImportOptions) (ImportReport, importPlan, error) {
	report := ImportReport{
		Skipped:  slices.Clone(set.Skipped),
		Warnings: slices.Clone(set.Warnings),
		More:     set.More,
	}
	var (
		plan  importPlan
		taken []string // quoted names
		names []string // of the nodes that are not skipped
	)
	for _, n := range importable(set, &report) {
		names = append(names, n.Name)
		old, err := selectNode(ctx, tx, n.Name)
		switch {
		case errors.Is(err, ErrNotFound):
			report.Added = append(report.Added, n.Name)
			plan.nodes = append(plan.nodes, importWrite{node: n})
			continue
		case err != nil:
			return ImportReport{}, importPlan{}, err
		case !opts.Replace:
			taken = append(taken, strconv.Quote(n.Name))
			continue
		}
		n = n.withState(old)
		if sameNode(old, n) {
			report.Unchanged = append(report.Unchanged, n.Name)
			continue
		}
		report.Replaced = append(report.Replaced, n.Name)
		plan.nodes = append(plan.nodes, importWrite{node: n, old: old})
	}
	if len(taken) > 0 {
		return ImportReport{}, importPlan{}, fmt.Errorf("%s: %w", strings.Join(taken, ", "), ErrExists)
	}
	var err error
	if report.Keys, plan.keys, err = planImportKeys(ctx, tx, set, names); err != nil {
		return ImportReport{}, importPlan{}, err
	}
	return report, plan, nil
}

// planImportKeys returns which of the nodes have a key in the set, and which of
// these do not use it yet.
func planImportKeys(ctx context.Context, tx *vault.Tx, set ImportSet, names []string) (all, unused []string, err error) {
	for _, name := range names {
		k := set.Keys[name]
		if k == nil {
			continue
		}
		all = append(all, name)
		fingerprint, err := selectNodeSSHKey(ctx, tx, name)
		if err != nil {
			return nil, nil, err
		}
		if fingerprint != k.Fingerprint() {
			unused = append(unused, name)
		}
	}
	return all, unused, nil
}

// importable returns the nodes of the set, normalized. Nodes that are not valid,
// or whose name came before, go to the skipped ones of the report.
func importable(set ImportSet, report *ImportReport) []Node {
	skip := func(p Problem) {
		report.Skipped, report.More.Skipped = addProblem(report.Skipped, report.More.Skipped, p)
	}
	var nodes []Node
	seen := make(map[string]bool, len(set.Nodes))
	for i, n := range set.Nodes {
		n = n.normalized()
		if err := n.validate(); err != nil {
			skip(Problem{rowName(n.Name, fmt.Sprintf("node %d", i+1)), err.Error()})
			continue
		}
		if seen[n.Name] {
			skip(Problem{n.Name, "comes twice"})
			continue
		}
		seen[n.Name] = true
		nodes = append(nodes, n)
	}
	return nodes
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
