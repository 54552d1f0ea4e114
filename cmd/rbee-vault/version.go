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
	Version   string `json:"version"`
	Schema    int64  `json:"schema"`
	Go        string `json:"go"`
	SQLite    string `json:"sqlite"`
	SQLCipher string `json:"sqlcipher"`
	Provider  string `json:"crypto_provider"`
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, and those of the database engine and its cryptography",
		RunE:  func(*cobra.Command, []string) error { return runVersion(a) },
	}
}

func runVersion(a *app) error {
	engine, err := vault.CurrentEngine()
	if err != nil {
		return err
	}
	v := versionJSON{version, vault.SchemaVersion(), runtime.Version(), engine.SQLite, engine.SQLCipher, engine.Provider}
	if a.json {
		return a.ui.object(v)
	}
	a.ui.printf("%s\n", versionText())
	a.ui.printf("SQLCipher %s, SQLite %s, cryptography by %s\n", v.SQLCipher, v.SQLite, v.Provider)
	return nil
}

// versionText is what --version prints.
func versionText() string {
	return fmt.Sprintf("rbee-vault %s (schema %d, %s)", version, vault.SchemaVersion(), runtime.Version())
}
