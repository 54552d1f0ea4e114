package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type backupStatusOptions struct {
	maxAge      string
	maxUnproven string
	offline     bool
	metrics     string
}

func (o *backupStatusOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.maxAge, "max-age", "30d", "the newest backup is stale at this `AGE`, such as 26h")
	f.StringVar(&o.maxUnproven, "max-unproven", "", "a restore must have been tried out within this `AGE` (default: the setting drill-age, 90d)")
	f.BoolVar(&o.offline, "offline", false, "do not ask the targets what they hold")
	f.StringVar(&o.metrics, "metrics", "", "also write `FILE` for Prometheus (node_exporter's textfile collector)")
}

func newBackupStatus(a *app) *cobra.Command {
	var o backupStatusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether the backups are as they should be, for a monitor",
		Long: `Say whether the newest backup is young enough, was written everywhere, is where it should
be, and whether a restore was tried out. A run with --if-changed that found nothing new
counts for the age.

Exit 0 if all is well, 3 if not: stale, failing, missing, unproven, or a failed drill. Any
other code means that it could not be seen, as when the vault does not open.`,
		Example: `  rbee-vault backup status --max-age 26h --metrics /var/lib/prometheus/node-exporter/rbee-vault.prom`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runBackupStatus(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type healthJSON struct {
	At       string           `json:"at"`
	OK       bool             `json:"ok"`
	Problems []backup.Problem `json:"problems"`
	Last     *recordJSON      `json:"last"` // the newest backup, with the states as its places say
	Proven   *string          `json:"proven"`
	Drill    *drillStateJSON  `json:"drill"`
}

type drillStateJSON struct {
	Sequence int64   `json:"sequence"`
	At       string  `json:"at"`
	Failed   *string `json:"failed"`
}

func newHealthJSON(h backup.Health) healthJSON {
	j := healthJSON{At: wire.FormatTime(h.At), OK: len(h.Problems) == 0, Problems: notNil(h.Problems), Proven: nullableTime(h.Proven)}
	if h.Last != nil {
		last := newRecordJSON(*h.Last, false)
		for i, state := range h.States {
			last.Copies[i].State = state
		}
		j.Last = &last
	}
	if d := h.Drill; d != nil {
		j.Drill = &drillStateJSON{d.Sequence, wire.FormatTime(d.At), wire.Nullable(d.Failed)}
	}
	return j
}

func runBackupStatus(ctx context.Context, a *app, o backupStatusOptions) (err error) {
	opts := backup.HealthOptions{Offline: o.offline}
	if opts.MaxAge, err = registry.ParseAge(o.maxAge); err != nil {
		return fmt.Errorf("--max-age: %w", err)
	}
	if o.maxUnproven != "" {
		if opts.MaxUnproven, err = registry.ParseAge(o.maxUnproven); err != nil {
			return fmt.Errorf("--max-unproven: %w", err)
		}
	}
	var h backup.Health
	err = a.withVault(ctx, func(v *vault.Vault) error {
		h, err = a.backupHealth(ctx, v, opts)
		return err
	})
	if err == nil && o.metrics != "" {
		err = h.WriteMetrics(o.metrics)
	}
	if err != nil {
		return err
	}
	if a.json {
		if err := a.ui.object(newHealthJSON(h)); err != nil {
			return err
		}
	} else {
		a.ui.pairs(healthPairs(h))
	}
	if len(h.Problems) > 0 {
		return withHint(errFindings, "%s", problemHints[h.Problems[0].Kind])
	}
	return nil
}

// backupHealth looks at the backups. What opts leaves open, the settings say.
func (a *app) backupHealth(ctx context.Context, v *vault.Vault, opts backup.HealthOptions) (backup.Health, error) {
	values, err := a.fleetSettings(ctx, v)
	if err != nil {
		return backup.Health{}, err
	}
	if opts.MaxUnproven == 0 {
		if opts.MaxUnproven, err = registry.ParseAge(values[registry.SettingDrillAge].value); err != nil {
			return backup.Health{}, err
		}
	}
	opts.Targets = targetsOf(values)
	return backup.Examine(ctx, v, opts)
}

// problemHints are the next steps.
var problemHints = map[backup.ProblemKind]string{
	backup.ProblemStale:    "Make a backup: rbee-vault backup. To make one every day: rbee-vault backup install-timer",
	backup.ProblemFailing:  "Fix the cause, and back up again: rbee-vault backup",
	backup.ProblemMissing:  "Bring the file back, or back up again: rbee-vault backup",
	backup.ProblemUnproven: "Try a restore out: rbee-vault backup drill --identity FILE, or --sheet",
	backup.ProblemDrill:    "Try another copy or an earlier backup out: rbee-vault backup drill SEQUENCE. Or make a new backup, and try that out.",
}

// healthPairs returns the state of the backups as names and values.
func healthPairs(h backup.Health) [][2]string {
	pairs := [][2]string{{"newest backup", "none"}}
	add := func(name, value string) { pairs = append(pairs, [2]string{name, value}) }
	if r := h.Last; r != nil {
		pairs[0][1] = fmt.Sprintf("%d, %s ago, %s, %d nodes", r.Sequence, ago(h.At.Sub(r.Created)), humanSize(r.Size), r.Nodes)
		if r.Confirmed.After(r.Created) {
			add("nothing new", ago(h.At.Sub(r.Confirmed))+" ago")
		}
		for i, c := range r.Copies {
			add(string(h.States[i]), c.String())
		}
	}
	add("proven restore", provenText(h.Proven, h.At))
	for _, p := range h.Problems {
		add("problem", p.Message)
	}
	if len(h.Problems) == 0 {
		add("problem", "none")
	}
	return pairs
}

// provenText says when the last drill that worked was.
func provenText(proven, now time.Time) string {
	if proven.IsZero() {
		return "never: rbee-vault backup drill"
	}
	return ago(now.Sub(proven)) + " ago"
}
