package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/systemd"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type timerOptions struct {
	system     bool
	user       bool
	daily      bool
	onCalendar string
	runAs      string
	credential string
	dir        string
	print      bool
}

func (o *timerOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.user, "user", false, "for systemd --user, by your keyring, while you are logged in (default)")
	f.BoolVar(&o.system, "system", false, "for the system's manager, by a credential")
	f.BoolVar(&o.daily, "daily", false, "once a day (default)")
	f.StringVar(&o.onCalendar, "on-calendar", "daily", "when, as `SPEC` of systemd.time(7): hourly, 'Mon..Fri 12:00'")
	f.StringVar(&o.runAs, "run-as", "", "with --system: the `USER` that owns the vault (default: you)")
	f.StringVar(&o.credential, "credential", "/etc/credstore.encrypted/rbee-vault", "with --system: `FILE` of slot add credential --systemd")
	f.StringVar(&o.dir, "dir", "", "write the units into `DIR` (default: where systemd looks for them)")
	f.BoolVar(&o.print, "print", false, "print the units, and write nothing")
	cmd.MarkFlagsMutuallyExclusive("user", "system")
	cmd.MarkFlagsMutuallyExclusive("daily", "on-calendar")
	cmd.MarkFlagsMutuallyExclusive("dir", "print")
}

func newBackupTimer(a *app) *cobra.Command {
	var o timerOptions
	cmd := &cobra.Command{
		Use:   "install-timer",
		Short: "Have systemd make backups, if something has changed",
		Long: `Write a service and a timer for systemd that run "rbee-vault backup --if-changed", and say
the commands that start them. Nothing is started.`,
		Example: `  rbee-vault backup install-timer
  sudo rbee-vault backup install-timer --system --run-as ops --db /home/ops/.rbee/beehives.db`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBackupTimer(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runBackupTimer(ctx context.Context, a *app, o timerOptions) error {
	s, err := o.schedule(ctx, a)
	if err != nil {
		return err
	}
	service, timer := s.Units()
	if o.print {
		for line := range strings.Lines(service + "\n" + timer) {
			a.ui.printf("%s\n", strings.TrimSuffix(line, "\n"))
		}
		return nil
	}
	dir := o.dir
	if dir == "" {
		if dir, err = o.unitDir(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var paths []string
	for _, unit := range [][2]string{{"rbee-vault-backup.service", service}, {"rbee-vault-backup.timer", timer}} {
		path := filepath.Join(dir, unit[0])
		if err := a.writeUnit(ctx, path, []byte(unit[1])); err != nil {
			return err
		}
		paths = append(paths, path)
	}
	if a.json {
		return a.ui.object(struct {
			Units []string `json:"units"`
		}{paths})
	}
	a.ui.info("The units are in %s. To start the timer:\n", dir)
	systemctl := "systemctl --user"
	if o.system {
		systemctl = "systemctl"
	}
	a.ui.info("  %[1]s daemon-reload\n  %[1]s enable --now rbee-vault-backup.timer", systemctl)
	if o.system {
		a.ui.info("\nThe service opens the vault by the credential %s. If it is not there yet:\n\n  rbee-vault slot add credential --systemd --out %s", s.Credential, s.Credential)
	}
	return nil
}

// schedule says what the units are to do.
func (o timerOptions) schedule(ctx context.Context, a *app) (systemd.Schedule, error) {
	db, err := a.path()
	if err != nil {
		return systemd.Schedule{}, err
	}
	s := systemd.Schedule{Database: db, Calendar: o.onCalendar}
	if len(a.identities) > 1 {
		return s, usagef("the units take one --identity")
	}
	if len(a.identities) == 1 {
		s.Identity = a.identities[0]
	}
	if o.system {
		s.User, s.Credential = o.runAs, o.credential
		if s.User == "" {
			me, err := user.Current()
			if err != nil {
				return s, err
			}
			s.User = me.Username
		}
	}
	if s.Program, err = os.Executable(); err != nil {
		return s, err
	}
	for _, path := range []*string{&s.Database, &s.Identity, &s.Credential} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return s, err
		}
	}
	for _, text := range []string{s.Program, s.Database, s.Identity, s.Credential, s.User} {
		if strings.ContainsAny(text, " \t\n%$\"'\\;:") {
			return s, fmt.Errorf("%w: %q has a character that means something to systemd: use a path without it", vault.ErrInvalid, text)
		}
	}
	return s, checkCalendar(ctx, s.Calendar)
}

// checkCalendar has systemd check when the timer runs, if it is there.
func checkCalendar(ctx context.Context, spec string) error {
	if strings.ContainsAny(spec, "\n\r") {
		return fmt.Errorf("%w: --on-calendar is one line", vault.ErrInvalid)
	}
	out, err := exec.CommandContext(ctx, "systemd-analyze", "calendar", "--", spec).CombinedOutput()
	if err == nil || errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("%w: --on-calendar: %s", vault.ErrInvalid, wire.Clean(string(bytes.TrimSpace(out))))
}

// unitDir is where systemd looks for the units of an administrator or of a user.
func (o timerOptions) unitDir() (string, error) {
	if o.system {
		return "/etc/systemd/system", nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w: no directory for configuration: %w", vault.ErrInvalid, err)
	}
	return filepath.Join(config, "systemd", "user"), nil
}

// writeUnit writes a unit. A unit that somebody has changed is replaced only if the operator
// agrees.
func (a *app) writeUnit(ctx context.Context, path string, text []byte) error {
	there, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(there, text):
		return nil
	case err == nil:
		if err := a.ui.confirm(ctx, fmt.Sprintf("Replace %s, which is different?", path)); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return err
	}
	return os.Chmod(path, 0o644) // whatever the umask is: systemd warns of less
}
