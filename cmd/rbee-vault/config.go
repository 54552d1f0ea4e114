package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "The defaults of the commands, such as the SSH user of a new node",
		Long: `The defaults of the commands. Those about the fleet are kept in the vault, so they travel
with it and are audited. Those about this machine are in a file, which may also have
another value for any of them. "rbee-vault help settings" has all names.`,
	}
	cmd.AddCommand(newConfigList(a), newConfigGet(a), newConfigSet(a), newConfigUnset(a))
	return cmd
}

type settingJSON struct {
	Name   string  `json:"name"`
	Value  *string `json:"value"`
	Origin origin  `json:"origin"`
	Where  *string `json:"where"` // the flag, the variable or the file
}

func newSettingJSON(v settingValue) settingJSON {
	return settingJSON{v.name, wire.Nullable(v.value), v.origin, wire.Nullable(v.where)}
}

var settingHeaders = []string{"NAME", "VALUE", "FROM"}

func newConfigList(a *app) *cobra.Command {
	var o tableOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the settings, and where each value comes from",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runConfigList(cmd.Context(), a, o) },
	}
	o.register(cmd, settingHeaders...)
	return cmd
}

func runConfigList(ctx context.Context, a *app, o tableOptions) error {
	list, err := o.table(settingHeaders)
	if err != nil {
		return err
	}
	inVault, err := a.vaultSettings(ctx)
	switch {
	case ctx.Err() != nil:
		return err
	case errors.Is(err, vault.ErrNoVault):
		a.ui.info("There is no vault yet, so these are the settings of this machine.")
	case err != nil:
		a.ui.warn("the vault does not open, so these are the settings of this machine: %v", err)
	}
	all, err := a.allSettings(inVault)
	if err != nil {
		return err
	}
	if a.json {
		return objectsOf(a.ui, all, newSettingJSON)
	}
	for _, v := range all {
		list.row(v.name, v.value, v.originText())
	}
	a.ui.table(list)
	return nil
}

func (v settingValue) originText() string {
	switch v.origin {
	case originUnset:
		return ""
	case originVault:
		return "the vault"
	case originBuiltIn:
		return "built in"
	}
	return v.where
}

// vaultSettings opens the vault and returns its settings.
func (a *app) vaultSettings(ctx context.Context) (inVault map[string]string, err error) {
	err = a.withRegistry(ctx, func(r *registry.Registry) error {
		inVault, err = r.Settings(ctx)
		return err
	})
	return inVault, err
}

func newConfigGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get SETTING",
		Short: "Print the value of a setting",
		Long: `Print the value of a setting. One without a value is an error (exit 14). The vault is opened
only if no flag, variable or file has a value.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runConfigGet(cmd.Context(), a, args[0]) },
	}
}

func runConfigGet(ctx context.Context, a *app, name string) error {
	s, err := findSetting(name)
	if err != nil {
		return err
	}
	v, err := a.lookUp(s, nil)
	if err == nil && !s.here && (v.origin == originBuiltIn || v.origin == originUnset) {
		var inVault map[string]string
		if inVault, err = a.vaultSettings(ctx); err == nil {
			v, err = a.lookUp(s, inVault)
		}
	}
	if err != nil {
		return err
	}
	if v.origin == originUnset {
		return withHint(fmt.Errorf("a value of %s: %w", name, registry.ErrNotFound), "To set it: rbee-vault config set %s VALUE", name)
	}
	if a.json {
		return a.ui.object(newSettingJSON(v))
	}
	a.ui.printf("%s\n", v.value)
	return nil
}
