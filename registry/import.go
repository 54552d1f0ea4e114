package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Problem is a row that an import could not take as it is.
type Problem struct {
	Row    string // the node's name, or which row it is where the name is not valid
	Reason string
}

// ImportSet is what was read from a file and can be imported.
type ImportSet struct {
	Nodes    []Node    // to be imported; they may share lists and maps
	Skipped  []Problem // rows that are not valid nodes: the first hundred
	Warnings []Problem // what could not be read of a node: the first hundred
	// More counts the problems beyond the first hundred.
	More More
	// TwelveFields: the source cannot have jump, note and labels. Where a node of the set
	// has none, those of the node that it replaces stay.
	TwelveFields bool
	// Keys are private keys by the name of a node. Import stores each key with its
	// node, which then uses it. The caller wipes them.
	Keys map[string]*PrivateKey
	// HostKeys are host keys by the name of a node. Import pins them with the node. Where
	// another key of the type is pinned, the import fails: ErrHostKeyChanged.
	HostKeys map[string][]ssh.PublicKey

	content []byte // hash of the rows of a plain SQLite file
}

// MaxImport is the most rows that one import takes, including skipped rows.
const MaxImport = 100_000

// maxProblems is how many problems of each kind are listed.
const maxProblems = 100

// maxTaken is how many names an error lists of those that exist already.
const maxTaken = 10

// More counts the problems that are not listed.
type More struct {
	Skipped  int
	Warnings int
}

// addNode adds a node. A long list grows to its longest at once: each step of a slower growth would
// need memory for two lists.
func (set *ImportSet) addNode(n Node) {
	if len(set.Nodes) == cap(set.Nodes) && len(set.Nodes) >= MaxImport/20 {
		set.Nodes = slices.Grow(set.Nodes, MaxImport-len(set.Nodes))
	}
	set.Nodes = append(set.Nodes, n)
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

// checkRoom returns an error where one more row is too many.
func (set *ImportSet) checkRoom() error {
	if len(set.Nodes)+len(set.Skipped)+set.More.Skipped >= MaxImport {
		return fmt.Errorf("%w: more than %d rows", ErrInvalid, MaxImport)
	}
	return nil
}

// ImportOptions says how to import.
type ImportOptions struct {
	// Source names where the nodes come from, for the audit log.
	Source string
	// Replace replaces a node of the same name, as AddNode does.
	Replace bool
	// SkipExisting leaves a node of the same name, and its key, as they are. It excludes
	// Replace.
	SkipExisting bool
	// DryRun returns the report and changes nothing.
	DryRun bool
}

// ImportReport is what Import did, or with DryRun would do. Names are in the order
// of the set.
type ImportReport struct {
	Added     []string
	Replaced  []string
	Unchanged []string  // stored already, with the same values
	Existing  []string  // left as they are by SkipExisting, whatever their values
	Skipped   []Problem // those of the set, then invalid and repeated nodes: the first hundred
	Warnings  []Problem // those of the set
	More      More      // problems beyond the first hundred
	Keys      []string  // nodes that now use their key of the set
	HostKeys  []string  // nodes whose host keys of the set are now pinned
}

// Import adds the nodes of a set in one transaction. Without Replace or SkipExisting, the
// whole import fails where any name exists: the error is ErrExists and lists the first ten names. A node
// may jump through one that follows in the set. It is skipped where it jumps through a node
// that is neither there nor in the set, in a circle, or through too many.
// After any error nothing is imported and the report is empty. Where nothing
// changes, nothing is written, not even an audit row.
func (r *Registry) Import(ctx context.Context, set ImportSet, opts ImportOptions) (ImportReport, error) {
	var (
		report ImportReport
		plan   importPlan
		err    error
	)
	if opts.Replace && opts.SkipExisting {
		return ImportReport{}, fmt.Errorf("import nodes: %w: Replace and SkipExisting exclude each other", ErrInvalid)
	}
	look := opts.DryRun || opts.Replace || opts.SkipExisting
	if look {
		err = r.v.View(ctx, func(tx *vault.Tx) (err error) {
			report, plan, err = planImport(ctx, tx, set, opts)
			return err
		})
	}
	// With Replace or SkipExisting, a look without the write lock comes first: often nothing
	// changes. Without them, a node that exists is an error, so there is a change to write.
	if err == nil && !opts.DryRun && !(look && plan.empty()) {
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
	keys  []string // nodes that have a key in the set and do not use it yet
	pins  []importPin
}

// importPin is a host key to be pinned.
type importPin struct {
	node string
	key  ssh.PublicKey
}

func (p importPlan) empty() bool { return len(p.nodes)+len(p.keys)+len(p.pins) == 0 }

// importWrite is a node to be written. It replaces old.
type importWrite struct {
	node *Node
	old  *Node // nil: there is none
}

// before returns the node as it is stored, or one without a name.
func (w importWrite) before() Node {
	if w.old == nil {
		return Node{}
	}
	return *w.old
}

func importNodes(ctx context.Context, tx *vault.Tx, set ImportSet, opts ImportOptions) (ImportReport, error) {
	report, plan, err := planImport(ctx, tx, set, opts)
	if err != nil || plan.empty() {
		return report, err
	}
	for _, w := range plan.nodes {
		if w.old == nil {
			err = createNode(ctx, tx, *w.node)
		} else {
			err = replaceNode(ctx, tx, *w.old, *w.node, ActionUpdateNode)
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
	for _, p := range plan.pins {
		if _, err := trustHostKey(ctx, tx, p.node, p.key, nil); err != nil {
			return ImportReport{}, fmt.Errorf("host key of node %q: %w", p.node, err)
		}
	}
	detail := fmt.Sprintf("added %d; replaced %d; unchanged %d; skipped %d",
		len(report.Added), len(report.Replaced), len(report.Unchanged), len(report.Skipped)+report.More.Skipped)
	if len(report.Existing) > 0 {
		detail += fmt.Sprintf("; existing %d", len(report.Existing))
	}
	if len(plan.keys) > 0 {
		detail += fmt.Sprintf("; keys %d", len(plan.keys))
	}
	if len(plan.pins) > 0 {
		detail += fmt.Sprintf("; host keys %d", len(plan.pins))
	}
	return report, tx.Audit(ctx, vault.Event{Action: ActionImportNodes, Subject: opts.Source, Detail: detail})
}

// planImport decides about every node and writes nothing. Jumps are right in what it plans.
func planImport(ctx context.Context, tx *vault.Tx, set ImportSet, opts ImportOptions) (ImportReport, importPlan, error) {
	report := ImportReport{
		Skipped:  slices.Clone(set.Skipped),
		Warnings: slices.Clone(set.Warnings),
		More:     set.More,
	}
	nodes := importable(set, &report)
	writes := make([]importWrite, 0, len(nodes))
	var taken []string // quoted names
	for _, n := range nodes {
		old, err := selectNode(ctx, tx, n.Name)
		switch {
		case errors.Is(err, ErrNotFound):
			writes = append(writes, importWrite{node: n})
			continue
		case err != nil:
			return ImportReport{}, importPlan{}, err
		case opts.SkipExisting:
			report.Existing = append(report.Existing, n.Name)
			continue
		case !opts.Replace:
			taken = append(taken, strconv.Quote(n.Name))
			continue
		}
		merged := n.withState(old)
		if set.TwelveFields {
			merged = merged.withDetails(old)
		}
		writes = append(writes, importWrite{node: &merged, old: &old})
	}
	if len(taken) > 0 {
		if n := len(taken) - maxTaken; n > 0 {
			taken = append(taken[:maxTaken], fmt.Sprintf("and %d more", n))
		}
		return ImportReport{}, importPlan{}, fmt.Errorf("%s: %w", strings.Join(taken, ", "), ErrExists)
	}
	writes, err := skipBadJumps(ctx, tx, writes, &report)
	if err != nil {
		return ImportReport{}, importPlan{}, err
	}
	var plan importPlan
	if report.Keys, plan.keys, err = planImportKeys(ctx, tx, set, writes); err != nil {
		return ImportReport{}, importPlan{}, err
	}
	if report.HostKeys, plan.pins, err = planImportPins(ctx, tx, set, writes); err != nil {
		return ImportReport{}, importPlan{}, err
	}
	plan.nodes = changingWrites(writes, &report)
	return report, plan, nil
}

// changingWrites returns the writes that change something, and puts every node on the report.
func changingWrites(writes []importWrite, report *ImportReport) []importWrite {
	return slices.DeleteFunc(writes, func(w importWrite) bool {
		switch {
		case w.old == nil:
			report.Added = append(report.Added, w.node.Name)
		case sameNode(*w.old, *w.node):
			report.Unchanged = append(report.Unchanged, w.node.Name)
			return true
		default:
			report.Replaced = append(report.Replaced, w.node.Name)
		}
		return false
	})
}

// skipBadJumps returns the nodes without those whose jump leads to no node, in a circle or
// through too many nodes, and without those that jump through such a node and are lost with
// it. They go to the skipped ones of the report.
func skipBadJumps(ctx context.Context, tx *vault.Tx, writes []importWrite, report *ImportReport) ([]importWrite, error) {
	if !slices.ContainsFunc(writes, func(w importWrite) bool { return w.node.ProxyJump != "" }) {
		return writes, nil
	}
	ways, err := selectJumps(ctx, tx)
	if err != nil {
		return nil, err
	}
	exists := map[string]bool{}
	for _, w := range writes {
		exists[w.node.Name] = true
		ways.set(w.node.Name, w.node.ProxyJump)
	}
	for _, w := range writes {
		jump := w.node.ProxyJump
		if _, asked := exists[jump]; !asked && jump != "" {
			if exists[jump], err = nodeExists(ctx, tx, jump); err != nil {
				return nil, err
			}
		}
	}
	for again := true; again; {
		again = false
		var kept, bad []importWrite
		for _, w := range writes {
			rule := ways.rule(w.node.Name)
			if jump := w.node.ProxyJump; jump != "" && !exists[jump] {
				rule = ruleJumpMissing
			}
			if rule == "" {
				kept = append(kept, w)
				continue
			}
			bad = append(bad, w)
			report.Skipped, report.More.Skipped = addProblem(report.Skipped, report.More.Skipped, Problem{w.node.Name, jumpError(w.node.Name, w.node.Name, rule).Error()})
		}
		for _, w := range bad { // as it is stored, or not at all
			old := w.before()
			exists[w.node.Name] = old.Name != ""
			ways.set(w.node.Name, old.ProxyJump)
			again = true
		}
		writes = kept
	}
	// What is left may still make the way to a node too long that is not in the set.
	var changed []string
	for _, w := range writes {
		changed = append(changed, changedJumps(w.before(), *w.node)...)
	}
	return writes, ways.check("", changed)
}

// planImportKeys returns which of the nodes have a key in the set, and which of
// these do not use it yet.
func planImportKeys(ctx context.Context, tx *vault.Tx, set ImportSet, writes []importWrite) (all, unused []string, err error) {
	for _, w := range writes {
		name := w.node.Name
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

// planImportPins returns which of the nodes have host keys in the set, and which of these
// keys are not pinned yet.
func planImportPins(ctx context.Context, tx *vault.Tx, set ImportSet, writes []importWrite) (all []string, pins []importPin, err error) {
	for _, w := range writes {
		name := w.node.Name
		keys := set.HostKeys[name]
		if len(keys) == 0 {
			continue
		}
		all = append(all, name)
		pinned, err := selectNodeHostKeys(ctx, tx, name)
		if err != nil {
			return nil, nil, err
		}
		for _, key := range keys {
			known, _, err := comparePins(pinned, HostKey{Node: name, Type: key.Type(), PublicKey: publicKeyLine(key)}, nil)
			if err != nil {
				return nil, nil, fmt.Errorf("host key of node %q: %w", name, err)
			}
			if !known {
				pins = append(pins, importPin{name, key})
			}
		}
	}
	return all, pins, nil
}

// importable returns the nodes of the set, normalized; they share memory with the set. Nodes that are not valid,
// or whose name came before, go to the skipped ones of the report.
func importable(set ImportSet, report *ImportReport) []*Node {
	skip := func(p Problem) {
		report.Skipped, report.More.Skipped = addProblem(report.Skipped, report.More.Skipped, p)
	}
	nodes := make([]*Node, 0, len(set.Nodes))
	seen := make(map[string]bool, len(set.Nodes))
	for i := range set.Nodes {
		given := &set.Nodes[i]
		n := *given
		n.normalize()
		if err := n.validate(); err != nil {
			skip(Problem{rowName(n.Name, fmt.Sprintf("node %d", i+1)), err.Error()})
			continue
		}
		if seen[n.Name] {
			skip(Problem{n.Name, "comes twice"})
			continue
		}
		seen[n.Name] = true
		if sameNode(*given, n) && given.LastConnected == n.LastConnected {
			nodes = append(nodes, given) // there may be very many
		} else {
			nodes = append(nodes, &n)
		}
	}
	return nodes
}

// rowName names a row in a report. A valid name is shown as it is. Any other name is
// quoted. Where the name is empty, too long or not printable, it is other.
func rowName(name, other string) string {
	switch {
	case ruleName(name) == "":
		return name
	case name != "" && len(name) <= 256 && strconv.Quote(name) == `"`+name+`"`:
		return strconv.Quote(name)
	}
	return other
}
