package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// version is the version of the program.
const version = "0.1.0"

type versionJSON struct {
	Version string `json:"version"`
	Schema  int64  `json:"schema"`
	Go      string `json:"go"`
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		RunE:  func(*cobra.Command, []string) error { return runVersion(a) },
	}
}

func runVersion(a *app) error {
	if a.json {
		return a.ui.object(versionJSON{version, vault.SchemaVersion(), runtime.Version()})
	}
	a.ui.printf("%s\n", versionText())
	return nil
}

func versionText() string {
	return fmt.Sprintf("rbee-vault %s (schema %d, %s)", version, vault.SchemaVersion(), runtime.Version())
}
