//go:build docs

package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// This file is compiled for packages only: `go run -tags docs ./cmd/rbee-vault man DIRECTORY`
// writes the manual pages of all commands and topics.

func addBuildCommands(root *cobra.Command) { root.AddCommand(newMan()) }

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			date := time.Unix(0, 0).UTC() // the same bytes from the same source
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "rbee-vault " + version, Manual: "rbee-vault", Date: &date}, args[0])
		},
	}
}
