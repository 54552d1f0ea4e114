package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// labelChange sets a label of a node, or removes it.
type labelChange struct {
	key, value string
	remove     bool
}

// isLabelChange reports whether an argument is a change and not a node.
func isLabelChange(arg string) bool { return strings.Contains(arg, "=") || strings.HasSuffix(arg, "-") }

// parseLabelChanges parses KEY=VALUE and, where that is allowed, KEY- for removing. What is
// valid in a label, the registry knows.
func parseLabelChanges(args []string, removing bool) ([]labelChange, error) {
	var changes []labelChange
	for _, arg := range args {
		key, value, set := strings.Cut(arg, "=")
		c := labelChange{key: key, value: value}
		if !set {
			key, c.remove = strings.CutSuffix(arg, "-")
			c.key = key
		}
		switch {
		case !set && !c.remove && removing:
			return nil, &registry.FieldError{Field: "labels", Rule: "must be given as rack=3, or rack- to remove one"}
		case !set && !(c.remove && removing):
			return nil, &registry.FieldError{Field: "labels", Rule: "must be given as rack=3"}
		case slices.ContainsFunc(changes, func(other labelChange) bool { return other.key == key }):
			return nil, &registry.FieldError{Field: "labels", Rule: "must have each key once"}
		}
		changes = append(changes, c)
	}
	return changes, nil
}

func applyLabels(n *registry.Node, changes []labelChange) {
	for _, c := range changes {
		switch {
		case c.remove:
			delete(n.Labels, c.key)
		case n.Labels == nil:
			n.Labels = map[string]string{c.key: c.value}
		default:
			n.Labels[c.key] = c.value
		}
	}
}

func newNodeLabel(a *app) *cobra.Command {
	var o selectOptions
	cmd := &cobra.Command{
		Use:   "label NAME|GLOB... KEY=VALUE|KEY-...",
		Short: "Set and remove labels of nodes",
		Long: `Set labels (rack=3), and remove them (rack-). A label that is there gets the new value;
removing one that is not there is no error. Keys and values are letters, digits and ._-,
at most 63 of them; a node has at most 32 labels. If one of several nodes cannot be
changed, none is.`,
		Example: `  rbee-vault node label 'hive-*' rack=3 spare-
  rbee-vault node label --where label.rack=3 zone=eu-1`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runNodeLabel(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runNodeLabel(ctx context.Context, a *app, o selectOptions, args []string) error {
	at := slices.IndexFunc(args, isLabelChange)
	if at < 0 {
		return usagef("which labels? Give rack=3 to set one, or rack- to remove it")
	}
	changes, err := parseLabelChanges(args[at:], true)
	if err != nil {
		return err
	}
	selection, err := o.parseSome(args[:at])
	if err != nil {
		return err
	}
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		names, err := selection.names(ctx, a, r)
		if err != nil || len(names) == 0 {
			return err
		}
		err = r.UpdateNodes(ctx, names, func(n *registry.Node) error {
			applyLabels(n, changes)
			return nil
		})
		if err != nil {
			return nodeHint(err, "", nil)
		}
		return a.showChanged(ctx, r, "labeled", names...)
	})
}
