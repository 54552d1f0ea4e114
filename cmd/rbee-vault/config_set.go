package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

type configSetOptions struct {
	here bool
}

func (o *configSetOptions) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.here, "here", false, "in the file of this machine, and not in the vault")
}

func newConfigSet(a *app) *cobra.Command {
	var o configSetOptions
	cmd := &cobra.Command{
		Use:   "set SETTING VALUE",
		Short: "Set a default",
		Example: `  rbee-vault config set git-repo https://example.org/rbee.git
  rbee-vault config set ssh-user ops
  rbee-vault config set identity-file ~/.config/rbee-vault/laptop.txt   # of this machine`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runConfigSet(cmd.Context(), a, o, args[0], args[1])
		},
	}
	o.register(cmd)
	return cmd
}

func newConfigUnset(a *app) *cobra.Command {
	var o configSetOptions
	cmd := &cobra.Command{
		Use:   "unset SETTING",
		Short: "Remove a default that was set",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return runConfigUnset(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	return cmd
}

func runConfigSet(ctx context.Context, a *app, o configSetOptions, name, value string) error {
	s, err := findSetting(name)
	if err != nil {
		return err
	}
	if err := s.check(value); err != nil {
		return err
	}
	if s.here || o.here {
		return a.changeConfigFile(ctx, s, value)
	}
	var inVault map[string]string
	err = a.withRegistry(ctx, func(r *registry.Registry) error {
		if name == registry.SettingBackupTarget {
			targets, err := backup.Targets(ctx, r.Vault())
			if err != nil {
				return err
			}
			if value != everyTarget {
				if err := checkTargets(splitTargets(value), targets, "To list the targets: rbee-vault backup target list"); err != nil {
					return err
				}
			}
		}
		if err := r.SetSetting(ctx, registry.Setting{Name: name, Value: value}); err != nil {
			return err
		}
		inVault, err = r.Settings(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return a.showSetting(s, originVault, inVault)
}

func runConfigUnset(ctx context.Context, a *app, o configSetOptions, name string) error {
	s, known := findSetting(name)
	if known == nil && (s.here || o.here) {
		return a.changeConfigFile(ctx, s, "")
	}
	var inVault map[string]string
	err := a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		err = r.UnsetSetting(ctx, name)
		if known != nil && errors.Is(err, registry.ErrNotFound) {
			return known
		} else if err != nil {
			return err
		}
		inVault, err = r.Settings(ctx)
		return err
	})
	if err != nil {
		return err
	}
	s.name = name // also of one that a later version has set
	return a.showSetting(s, originVault, inVault)
}

// checkTargets refuses names of targets that the vault does not have. next is the next step.
func checkTargets(names []string, targets []backup.Target, next string) error {
	var known []string
	for _, t := range targets {
		known = append(known, t.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return withSuggestion(fmt.Errorf("the target %q of the setting %s: %w", name, registry.SettingBackupTarget, registry.ErrNotFound), name, known, next)
		}
	}
	return nil
}

// changeConfigFile sets or removes a setting in the file of this machine.
func (a *app) changeConfigFile(ctx context.Context, s setting, value string) error {
	wait := defaultWait
	if a.given("wait") { // the file itself may be what is wrong
		wait = a.wait
	}
	if err := setInConfigFile(ctx, wait, s.name, value); err != nil {
		return err
	}
	a.file, a.fileErr = nil, nil // it is read again
	return a.showSetting(s, originFile, nil)
}

// showSetting prints what holds after a change at a place.
func (a *app) showSetting(s setting, changed origin, inVault map[string]string) error {
	v, err := a.lookUp(s, inVault)
	if err != nil {
		return err
	}
	if a.json {
		return a.ui.object(newSettingJSON(v))
	}
	switch v.origin {
	case originUnset:
		a.ui.info("%s has no value now", s.name)
	case changed:
		a.ui.info("%s is now %s", s.name, wire.Quote(v.value))
	default:
		a.ui.info("%s is %s here, from %s", s.name, wire.Quote(v.value), v.originText())
	}
	return nil
}
