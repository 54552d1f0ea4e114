package main

import (
	"fmt"
	"strconv"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

func newNodeList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the nodes",
		Long: `List the nodes by name: as a table on a terminal; in a pipe tab-separated (name,
host, port, user, status, last contact, backends); with --json one object a line.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runNodeList(cmd, a) },
	}
}

func runNodeList(cmd *cobra.Command, a *app) error {
	var nodes []registry.Node
	err := a.withRegistry(cmd.Context(), func(r *registry.Registry) (err error) {
		nodes, err = r.ListNodes(cmd.Context())
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		for _, n := range nodes {
			if err := a.ui.object(n); err != nil {
				return err
			}
		}
		return nil
	}
	if len(nodes) == 0 {
		a.ui.info("There are no nodes yet: rbee-vault node add NAME ...")
		return nil
	}
	rows := make([][]string, len(nodes))
	for i, n := range nodes {
		last := "-"
		if !n.LastConnected.IsZero() {
			last = n.LastConnected.Format(time.RFC3339)
			if a.ui.pretty {
				last = ago(a.now().Sub(n.LastConnected))
			}
		} else if a.ui.pretty {
			last = "never"
		}
		backends := backendsText(n)
		if backends == "" {
			backends = "-"
		}
		rows[i] = []string{n.Name, n.SSHHost, strconv.Itoa(int(n.SSHPort)), n.SSHUser, string(n.Status), last, backends}
	}
	colours := map[registry.Status]lipgloss.Style{
		registry.StatusOnline:  green,
		registry.StatusOffline: yellow,
		registry.StatusError:   red,
		registry.StatusUnknown: faint,
	}
	a.ui.table([]string{"NAME", "HOST", "PORT", "USER", "STATUS", "LAST CONTACT", "BACKENDS"}, rows, func(row, col int) lipgloss.Style {
		if col == 4 {
			return colours[nodes[row].Status]
		}
		return lipgloss.NewStyle()
	})
	return nil
}

// ago gives a duration as a person says it.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
