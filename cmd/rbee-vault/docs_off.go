//go:build !docs

package main

import "github.com/spf13/cobra"

// addBuildCommands adds nothing: docs.go has the command that writes the manual pages.
func addBuildCommands(*cobra.Command) {}
