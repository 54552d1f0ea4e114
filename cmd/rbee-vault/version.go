package main

import (
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
	v := versionJSON{version, vault.SchemaVersion(), runtime.Version()}
	if a.json {
		return a.ui.object(v)
	}
	a.ui.printf("rbee-vault %s (schema %d, %s)\n", v.Version, v.Schema, v.Go)
	return nil
}
