package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// hookEnv are the variables that a hook gets. The rest may say where secrets are, or hold the
// credentials of a bucket.
var hookEnv = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"}

// hook is the command of --hook: words, separated by spaces. No shell reads them.
type hook []string

// newHook parses --hook, and looks for the program, before a backup is made.
func newHook(text string) (hook, error) {
	h := hook(strings.Fields(text))
	if len(h) == 0 {
		return nil, nil
	}
	if _, err := exec.LookPath(h[0]); err != nil {
		return nil, fmt.Errorf("%w: --hook: %w", vault.ErrInvalid, err)
	}
	return h, nil
}

// run runs the hook with the backup's copies as further arguments: a path, or TARGET/OBJECT.
func (h hook) run(ctx context.Context, a *app, r backup.Record) error {
	if h == nil {
		return nil
	}
	args := slices.Clone(h)
	for _, c := range r.Copies {
		if c.There() {
			args = append(args, c.String())
		}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = a.ui.err, a.ui.err
	cmd.Env = []string{} // not nil, which would mean all of ours
	for _, name := range hookEnv {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	a.ui.out.Flush()
	if err := cmd.Run(); err != nil {
		return withHint(fmt.Errorf("%w: the backup is made, but its hook failed: %s: %w", errPartial, h[0], err), "The backup is good. Run the hook by itself to see why it failed.")
	}
	return nil
}
