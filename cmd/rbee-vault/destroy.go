package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type destroyOptions struct {
	dryRun bool
}

func (o *destroyOptions) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would be removed, and remove nothing")
}

func newDestroy(a *app) *cobra.Command {
	var o destroyOptions
	cmd := &cobra.Command{
		Use:   "destroy",
		Short: "Remove a vault, or a file that was set aside, with its key",
		Long: `Remove the vault at --db with its keyring items. --db may also name a file that restore
or a migration set aside.

No key is needed, but you type the name of the file to confirm (not with --yes).
Backups stay, and their recipients can read them. A copy of a vault in another
directory shares the keyring items with the original: after one of them is destroyed,
neither opens by the keyring.`,
		Example: `  rbee-vault destroy --db ~/.rbee/beehives.db.replaced-20260102T150405Z`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runDestroy(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type destroyJSON struct {
	DryRun   bool     `json:"dry_run"`
	Files    []string `json:"files"`
	Accounts []string `json:"keyring_items"`
	Left     []string `json:"left"`
	LeftKeys []string `json:"left_in_keyring"`
}

func runDestroy(ctx context.Context, a *app, o destroyOptions) error {
	cfg, err := a.configWithoutIdentities()
	if err != nil {
		return err
	}
	plan, err := vault.PlanDestruction(ctx, cfg)
	if err != nil {
		return destroyHint(err, cfg.Path, nil)
	}
	if !o.dryRun {
		if err := a.confirmDestroy(ctx, plan, filepath.Base(cfg.Path)); err != nil {
			return err
		}
		if plan, err = vault.Destroy(ctx, cfg); err != nil {
			return destroyHint(err, cfg.Path, plan.Accounts)
		}
	}
	if a.json {
		return a.ui.object(destroyJSON{o.dryRun, notNil(plan.Files), notNil(plan.Accounts), notNil(plan.Left), notNil(plan.LeftAccounts)})
	}
	showDestroyed(a, plan, o.dryRun)
	showLeft(a, plan.Path)
	return nil
}

func showDestroyed(a *app, plan vault.Destroyed, dryRun bool) {
	for _, file := range plan.Files {
		a.ui.printf("%s\n", file)
	}
	for _, account := range plan.Accounts {
		a.ui.printf("keyring item %s\n", account)
	}
	if dryRun {
		a.ui.info("Nothing was removed: this was a dry run.")
	} else {
		a.ui.info("Destroyed. The recipients of its backups can still read them.")
	}
	for _, file := range plan.Left {
		a.ui.info("Not removed, because it is another vault: %s", file)
	}
	for _, account := range plan.LeftAccounts {
		a.ui.warn("the keyring item %s was not removed: it may belong to another vault", account)
	}
}

// showLeft names what belongs to the vault and is not removed, for whoever leaves for good. Where
// copies of its backups are elsewhere, the vault alone has known.
func showLeft(a *app, path string) {
	dir := filepath.Join(filepath.Dir(path), backupsDir)
	entries, _ := os.ReadDir(dir)
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !backup.IsObjectName(e.Name()) })
	if len(entries) > 0 {
		a.ui.info("Backups stay: %d in %s", len(entries), dir)
	}
	for _, file := range plaintextBeside(path) {
		a.ui.info("Stays, in plaintext: %s", file)
	}
	for _, suffix := range []string{".lock", ".write", ".turn", ".anchor", ".drill.lock"} {
		if info, err := os.Stat(path + suffix); err == nil && info.Size() == 0 {
			a.ui.info("Stays, empty: %s", path+suffix)
		}
	}
}

// confirmDestroy asks the operator to type the name of the file.
func (a *app) confirmDestroy(ctx context.Context, plan vault.Destroyed, name string) error {
	if a.yes {
		return nil
	}
	if !a.interactive() {
		return fmt.Errorf("%w, so --yes is needed: destroy %s", errNeedsFlag, name)
	}
	for _, file := range plan.Files {
		a.ui.say("  %s", file)
	}
	for _, account := range plan.Accounts {
		a.ui.say("  keyring item %s", account)
	}
	answer, err := a.ui.ask(ctx, fmt.Sprintf("All of this will be lost for good. Type %s to destroy it: ", name))
	if err != nil {
		return err
	}
	if answer != name {
		return errDeclined
	}
	return nil
}

// destroyHint adds the next step after a failure of the keyring; items are the keyring
// items that were removed before it.
func destroyHint(err error, path string, items []string) error {
	if classify(err).code != exitKeyring {
		return err
	}
	what := "Nothing was removed."
	if len(items) > 0 {
		what = "No file was removed. Removed keyring items: " + strings.Join(items, ", ") + "."
	}
	return withHint(err, "%s Run this where the keyring is available. If the keyring is lost for good, so are its items. Then remove the files: rm %s %s", what, wire.Quote(path), wire.Quote(path+".slots"))
}
