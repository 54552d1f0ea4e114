package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

func newUICommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Show the fleet on a page in the terminal",
		Long: `Show the nodes on a page that fills the terminal: status, last contact, labels, whether the
vault has an SSH key, how many host keys are pinned, and how the backups are. What other
processes change appears within seconds.

Keys show all fields of a node, open a shell on it (as "rbee-vault ssh" does) or check it
(as "rbee-vault check", once you have confirmed). Nothing else writes to the vault. "?"
shows all keys.

The page goes on through a "rbee-vault rotate", and while a shell is open it does not have
the vault open. It needs a terminal: elsewhere, list the nodes by "rbee-vault node list".`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runUI(cmd.Context(), a, givenFlags(cmd.Root().PersistentFlags()))
	}
	return cmd
}

// runUI shows the page. flags are those that the commands of the page get.
func runUI(ctx context.Context, a *app, flags []string) error {
	if err := checkPage(a); err != nil {
		return err
	}
	notes := holdNotes(a.ui)
	open, err := a.opener(ctx)
	if err != nil {
		return err
	}
	// From here on an interrupt may be for a command of the page.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	reader := &vaultReader{app: a, open: open}
	if err := reader.begin(ctx); err != nil {
		return err
	}
	notes.hold()
	err = runFleetPage(newFleetPage(ctx, a.ui, reader, notes, flags), os.Stdin, a.ui.screen)
	cancel()
	if e := reader.release(); err == nil {
		err = e
	}
	notes.print()
	return err
}

// checkPage returns a usage error where there cannot be a page.
func checkPage(a *app) error {
	in, ok := a.stdin.(*os.File)
	switch {
	case a.json:
		return withHint(usagef("ui is a page for a person, and prints no JSON"), "For a program: rbee-vault node list --json")
	case a.noInput:
		return withHint(usagef("ui needs a person at the terminal, and there is --no-input"), "To list the nodes: rbee-vault node list")
	case !ok || !term.IsTerminal(int(in.Fd())) || a.ui.screen == nil:
		return withHint(usagef("ui needs a terminal that can move its cursor, as standard input and output"), "To list the nodes: rbee-vault node list")
	}
	sources, err := a.identitySources()
	if err != nil {
		return err
	}
	for _, file := range append(sources, a.passphraseFile) {
		if isStream(file) {
			return withHint(usagef("ui cannot hand %s on to the commands that it runs", file), "Give a file's path, or open with the keyring.")
		}
	}
	return nil
}

// givenFlags returns the flags that were given, for another run of the command.
func givenFlags(flags *pflag.FlagSet) (given []string) {
	flags.Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			given = append(given, fmt.Sprintf("--%s=%s", f.Name, v))
		}
	})
	return given
}

// errStopped ends the page as an interrupt ends other commands.
var errStopped = fmt.Errorf("the page was stopped: %w", context.Canceled)

// errPagePanic: the cause is on standard error.
var errPagePanic = errors.New("the page has failed; this is a bug")
