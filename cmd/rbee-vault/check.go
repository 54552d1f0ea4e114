package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
)

func newCheck(a *app) *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check [NODE|GLOB...]",
		Short: "Log in to nodes, and note which are online",
		Long: `Log in to the nodes, many at a time, and store their status and last contact. Without a
node, a glob or --where, all nodes are checked. The output is a table on a terminal;
tab-separated in a pipe (node, outcome, status, milliseconds, backends, cause); JSON
lines with --json. Each node that is not online has its cause and the next step.

A node without a pinned host key is at first contact. On a terminal its fingerprint is
shown, and you are asked whether to pin it. Without one, --pin names the fingerprints to
accept, of whichever selected node; --accept-new trusts whatever answers first, which an
attacker on the network can be. A key that changed is never accepted here.

--discover also asks each machine what it has, and stores its backends and devices.
--watch checks again and again, prints only changes after the first time, and ends with
Ctrl-C (exit 130). A rotation by another process does not have to wait for its end.

The exit code is 3 if a node is not online, or could not be asked what it has.`,
		Example: `  rbee-vault check
  rbee-vault check 'hive-*' --where status=offline --timeout 3s
  rbee-vault check hive-01 --pin SHA256:... --discover
  rbee-vault check --watch --interval 1m --json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runCheck(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

type checkOptions struct {
	selectOptions
	contactOptions
	timeout  time.Duration
	discover bool
	watch    bool
	interval time.Duration
	noSave   bool

	given func(flag string) bool // reports whether a flag was given
}

func (o *checkOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	f := cmd.Flags()
	o.given = f.Changed
	f.DurationVar(&o.timeout, "timeout", hive.DefaultTimeout, "how long a login may take, and what --discover runs")
	f.BoolVar(&o.discover, "discover", false, "ask what the machines have, and store their backends and devices")
	f.BoolVar(&o.watch, "watch", false, "check again and again until Ctrl-C, and print changes")
	f.DurationVar(&o.interval, "interval", 30*time.Second, "time between two checks of --watch")
	f.BoolVar(&o.noSave, "no-save", false, "store nothing in the registry, and pin no key")
	o.contactOptions.register(cmd)
}

func (o checkOptions) check() error {
	if err := o.contactOptions.check(); err != nil {
		return err
	}
	switch {
	case o.timeout <= 0:
		return usagef("--timeout must be more than 0")
	case o.given("interval") && !o.watch:
		return usagef("--interval needs --watch")
	case o.interval < time.Second:
		return usagef("--interval must be a second or more")
	case o.noSave && (o.acceptNew || len(o.pins) > 0):
		return usagef("--no-save stores nothing: give no --pin and no --accept-new")
	}
	return nil
}

func runCheck(ctx context.Context, a *app, o checkOptions, args []string) error {
	if err := o.check(); err != nil {
		return err
	}
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	return a.withSession(ctx, func(s *registry.Session) error {
		var nodes []registry.Node
		err := s.Use(ctx, func(r *registry.Registry) (err error) {
			nodes, err = selection.nodes(ctx, a, r)
			return err
		})
		if err != nil {
			return err
		}
		if len(nodes) == 0 {
			if !selection.conditional { // else nodes has said that no node matches
				a.ui.info("There are no nodes yet. To add one: rbee-vault node add NAME ...")
			}
			return nil
		}
		c := newChecker(a, o, sessionStore{s}, &sessionDialer{session: s, timeout: o.timeout}, nodes)
		c.live = true
		if o.watch {
			return c.watch(ctx)
		}
		return c.once(ctx)
	})
}
