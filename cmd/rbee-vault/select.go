package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/maruel/natural"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// selectOptions are the flags of every command that takes nodes. Its arguments are names
// and globs.
type selectOptions struct {
	where string
}

func (o *selectOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.where, "where", "", "only nodes that meet all `CONDITIONS`, joined by commas: status=online, backend=cuda, cuda>=2, label.rack=3, seen<10m")
}

// parse parses the flags and the arguments. Without any of them, every node is selected.
// It is called before the vault is opened, so that nobody unlocks it for a mistyped glob.
func (o selectOptions) parse(patterns []string) (nodeSelection, error) {
	if _, err := registry.ParseSelector(nil, o.where); err != nil {
		return nodeSelection{}, o.whereHint(err)
	}
	s, err := registry.ParseSelector(patterns, o.where)
	if err != nil {
		return nodeSelection{}, err
	}
	exact, _ := s.Names()
	return nodeSelection{selector: s, exact: exact, conditional: o.where != "", backends: backendsOf(o.where)}, nil
}

// conditionNames are what --where compares, besides the devices of a backend.
var conditionNames = []string{"status", "backend", "seen", "label"}

// backendsOf returns the names in --where that are taken for those of backends.
func backendsOf(where string) (names []string) {
	for text := range strings.SplitSeq(where, ",") {
		name, value := strings.TrimSpace(text), ""
		if at := strings.IndexAny(name, "!=<>"); at >= 0 {
			name, value = strings.TrimSpace(name[:at]), strings.TrimLeft(name[at:], "!=")
		}
		if name == "backend" {
			names = append(names, strings.TrimSpace(value))
		}
		word, _, _ := strings.Cut(name, ".")
		if !slices.Contains(conditionNames, word) {
			names = append(names, name)
		}
	}
	return names
}

// conditionMeant is didYouMean for a name in --where.
func conditionMeant(name string) string {
	word, _, _ := strings.Cut(name, ".")
	return didYouMean(word, conditionNames)
}

// whereHint says what a name in --where may have meant that is taken for a backend.
func (o selectOptions) whereHint(err error) error {
	const next = "The conditions: rbee-vault help selectors"
	for _, name := range backendsOf(o.where) {
		if meant := conditionMeant(name); meant != "" {
			return withHint(err, "%s %s", meant, next)
		}
	}
	return withHint(err, next)
}

// parseSome is parse for commands that change nodes: they never mean every node.
func (o selectOptions) parseSome(patterns []string) (nodeSelection, error) {
	if len(patterns) == 0 && o.where == "" {
		return nodeSelection{}, usagef("which nodes?")
	}
	return o.parse(patterns)
}

// globs are the characters that make a name a glob.
const globs = "*?["

// nodeSelection says which nodes a command is about.
type nodeSelection struct {
	selector    registry.Selector
	exact       []string // the names, where there is no glob and no condition
	conditional bool     // --where was given
	backends    []string // whose devices it compares
}

// selectNode selects the node of that name. A glob is not expanded.
func selectNode(name string) nodeSelection { return nodeSelection{exact: []string{name}} }

// nodes returns the selected nodes by name, n2 before n10. A name or glob that no node matches is
// ErrNotFound. If no node meets the conditions, nodes prints that and returns none.
func (s nodeSelection) nodes(ctx context.Context, a *app, r *registry.Registry) ([]registry.Node, error) {
	if s.exact != nil { // an unreadable row of another node does not matter
		return s.exactNodes(ctx, r)
	}
	all, err := r.ListNodes(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := s.selector.Select(all, a.now())
	if err != nil {
		return nil, nodeHint(err, s.selector.Unmatched(all), all)
	}
	s.warnUnknown(a, all)
	slices.SortFunc(nodes, func(a, b registry.Node) int { return natural.Compare(a.Name, b.Name) })
	if len(nodes) == 0 && s.conditional {
		a.ui.info("No node matches.")
	}
	return nodes, nil
}

// warnUnknown warns of backends in --where that no node has. A mistyped name would pass for a
// condition that just holds nowhere, or with != everywhere.
func (s nodeSelection) warnUnknown(a *app, all []registry.Node) {
	for _, name := range s.backends {
		if name == "" || slices.ContainsFunc(all, func(n registry.Node) bool {
			_, counted := n.Devices[name]
			return counted || slices.Contains(n.Backends, name)
		}) {
			continue
		}
		meant := conditionMeant(name)
		if meant != "" {
			meant = ". " + meant
		}
		a.ui.warn("no node is known to have the backend %s of --where%s", name, meant)
	}
}

func (s nodeSelection) exactNodes(ctx context.Context, r *registry.Registry) ([]registry.Node, error) {
	var nodes []registry.Node
	for _, name := range s.exact {
		n, err := r.GetNode(ctx, name)
		if err != nil {
			return nil, noNode(ctx, r, name, err)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// names returns the names of the selected nodes.
func (s nodeSelection) names(ctx context.Context, a *app, r *registry.Registry) ([]string, error) {
	nodes, err := s.nodes(ctx, a, r)
	return namesOf(nodes), err
}

func namesOf(nodes []registry.Node) (names []string) {
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names
}

// removable is names, but the row of a node that is named may be unreadable: removing
// the node is how to get rid of it.
func (s nodeSelection) removable(ctx context.Context, a *app, r *registry.Registry) ([]string, error) {
	if s.exact == nil {
		return s.names(ctx, a, r)
	}
	for _, name := range s.exact {
		if _, err := r.GetNode(ctx, name); err != nil && !errors.Is(err, registry.ErrBadRow) {
			return nil, noNode(ctx, r, name, err)
		}
	}
	return s.exact, nil
}

// noneOf is noNode for the first of several nodes that does not exist.
func noneOf(ctx context.Context, r *registry.Registry, names []string, err error) error {
	if !errors.Is(err, registry.ErrNotFound) {
		return err
	}
	for _, name := range names {
		if _, missing := r.GetNode(ctx, name); errors.Is(missing, registry.ErrNotFound) {
			return noNode(ctx, r, name, err)
		}
	}
	return err
}

// noNode adds what a node's name may have meant to an error about it.
func noNode(ctx context.Context, r *registry.Registry, name string, err error) error {
	if !errors.Is(err, registry.ErrNotFound) {
		return err
	}
	all, listErr := r.ListNodes(ctx)
	if listErr != nil {
		all = nil
	}
	if strings.ContainsAny(name, globs) {
		return withHint(err, "This takes the name of one node, and no glob. List the nodes: rbee-vault node list")
	}
	return nodeHint(err, name, all)
}

// nodeHint adds the next step for a node that does not exist.
func nodeHint(err error, name string, all []registry.Node) error {
	if !errors.Is(err, registry.ErrNotFound) {
		return err
	}
	if strings.ContainsAny(name, globs) {
		return withHint(err, "No node's name matches this glob. List the nodes: rbee-vault node list")
	}
	return withSuggestion(err, name, namesOf(all), "List the nodes: rbee-vault node list")
}
