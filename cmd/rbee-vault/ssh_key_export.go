package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type exportedJSON struct {
	Fingerprint string `json:"fingerprint"`
	Path        string `json:"path"`
}

type keyExportOptions struct {
	out string
}

func (o *keyExportOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "write to the new `FILE`, '-' for a pipe")
}

func newSSHKeyExport(a *app) *cobra.Command {
	var o keyExportOptions
	cmd := &cobra.Command{
		Use:   "export KEY -o FILE",
		Short: "Write a private key to a file outside the vault",
		Long: `Write the private key, without a passphrase, to the new file FILE, mode 0600. '-o -'
writes it to a pipe, but never to a terminal. The audit log records the export before
the key is written, and it records a refused export too. Programs that link the library
need no export: they sign with the key inside the vault.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runSSHKeyExport(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	return cmd
}

func runSSHKeyExport(ctx context.Context, a *app, o keyExportOptions, name string) error {
	if o.out == "" {
		return usagef("-o FILE is needed")
	}
	return a.withSSHKey(ctx, name, func(r *registry.Registry, k registry.SSHKey) error {
		return exportSSHKey(ctx, a, r, k, o.out)
	})
}

// exportSSHKey writes the private key to out, if the operator confirms it. The audit log
// records a refusal too.
func exportSSHKey(ctx context.Context, a *app, r *registry.Registry, k registry.SSHKey, out string) error {
	refuse := func(reason error) error {
		return errors.Join(reason, r.RefuseSSHKeyExport(context.WithoutCancel(ctx), k.Fingerprint, reason.Error()))
	}
	to := out
	if out != "-" {
		var err error
		if to, err = filepath.Abs(out); err != nil {
			return err
		}
	}
	if err := checkExport(a, to); err != nil {
		return refuse(err)
	}
	if err := a.ui.confirm(ctx, fmt.Sprintf("Write the private key %s to %s, without a passphrase?", k.Fingerprint, to)); err != nil {
		return refuse(err)
	}
	private, err := r.ExportSSHKey(ctx, k.Fingerprint, "to "+to)
	if err != nil {
		return err
	}
	defer clear(private)
	if to == "-" {
		_, err := a.ui.out.Write(private)
		return err
	}
	if err := vault.CreateFile(to, private); err != nil {
		return err
	}
	if a.json {
		return a.ui.object(exportedJSON{k.Fingerprint, to})
	}
	a.ui.printf("%s\n", to)
	return nil
}

// checkExport returns an error if the private key must not be written there: to a
// terminal, or over a file.
func checkExport(a *app, to string) error {
	if to == "-" {
		return a.ui.checkRaw("a private key is not shown on a terminal: redirect standard output to a pipe, or use -o FILE")
	}
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%w: %q", vault.ErrFileExists, to)
	}
	return nil
}
