package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// storeOptions say how a bucket is reached.
type storeOptions struct {
	endpoint string
	region   string
	profile  string
}

func (o *storeOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.endpoint, "endpoint", "", "`URL` of an S3-compatible store, as in https://s3.example.org (default: Amazon's, or $AWS_ENDPOINT_URL)")
	f.StringVar(&o.region, "region", "", "the bucket's `REGION` (default: the machine's AWS configuration, then us-east-1)")
	f.StringVar(&o.profile, "profile", "", "take the credential from this `PROFILE` of the machine's AWS configuration")
}

func (o storeOptions) target(name, url string) backup.Target {
	return backup.Target{Name: name, URL: url, Endpoint: o.endpoint, Region: o.region, Profile: o.profile}
}

type backupTargetAddOptions struct {
	storeOptions
	accessKey     string
	secretFile    string
	retain        string
	noConditional bool
	noChecksum    bool
	noCheck       bool
}

func (o *backupTargetAddOptions) register(cmd *cobra.Command) {
	o.storeOptions.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.accessKey, "access-key", "", "access key `ID`; its secret is kept in the vault (default: the machine's own credential)")
	f.StringVar(&o.secretFile, "secret-file", "", "read the secret of --access-key from the only line of `FILE`, '-' or 'fd:N'")
	f.StringVar(&o.retain, "retain", "", "lock each backup for so long, as in 30d: until then nobody can delete it")
	f.BoolVar(&o.noConditional, "no-conditional", false, "the store does not know If-None-Match, so an object there could be replaced")
	f.BoolVar(&o.noChecksum, "no-checksum", false, "the store does not know SHA-256 checksums; not with --retain")
	f.BoolVar(&o.noCheck, "no-check", false, "do not try the target")
}

func newBackupTargetAdd(a *app) *cobra.Command {
	var o backupTargetAddOptions
	cmd := &cobra.Command{
		Use:   "add NAME URL",
		Short: "Add a target",
		Long: `Add a target: dir:/PATH or s3://BUCKET/PREFIX. It is tried first, as "check" does.

A credential needs no more than the right to write: then whoever takes this machine over
cannot delete a backup. Without --access-key it is the machine's own, as the AWS tools find
it: environment, profile, the instance's role.

--retain needs a bucket that was made with object lock. A lock cannot be taken back.`,
		Example: `  rbee-vault backup target add usb dir:/media/usb/backups
  rbee-vault backup target add offsite s3://fleet-backups/hive --region eu-central-1 --retain 30d
  rbee-vault backup target add minio s3://backups --endpoint https://minio.example.org --access-key AKID --secret-file key.txt`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runBackupTargetAdd(cmd.Context(), a, o, args[0], args[1])
		},
	}
	o.register(cmd)
	return cmd
}

type addedTargetJSON struct {
	targetJSON
	Check *targetCheckJSON `json:"check"` // null: --no-check
}

func runBackupTargetAdd(ctx context.Context, a *app, o backupTargetAddOptions, name, url string) error {
	return a.withVault(ctx, func(v *vault.Vault) error {
		t, err := o.build(ctx, a, name, url)
		defer clear(t.Secret)
		if err == nil {
			err = checkNewTarget(ctx, a, v, t)
		}
		if err != nil {
			return err
		}
		var checked *targetCheckJSON
		if !o.noCheck {
			store, err := backup.OpenStore(ctx, t)
			if err != nil {
				return err
			}
			check, err := backup.CheckTarget(ctx, store, a.confirmProbe)
			if err != nil {
				return withHint(err, "%s", strings.TrimSpace(failureHint(err)+"\n  Nothing was added. To add it without trying it: --no-check"))
			}
			checked = newTargetCheckJSON(t, check, nil)
			a.showTargetCheck(t, check)
		}
		if err := backup.AddTarget(ctx, v, t); err != nil {
			return err
		}
		if a.json {
			return a.ui.object(addedTargetJSON{newTargetJSON(t), checked})
		}
		values, err := a.fleetSettings(ctx, v)
		if err != nil {
			return err
		}
		if names := targetsOf(values); names != nil && !slices.Contains(names, t.Name) {
			a.ui.warn("no backup goes to %[1]s yet: the setting %[2]s names others. To add it: rbee-vault config set %[2]s %[3]s,%[1]s", t.Name, registry.SettingBackupTarget, strings.Join(names, ","))
			return nil
		}
		a.ui.info("Each backup goes to %s from now on. To make one: rbee-vault backup", t.Name)
		return nil
	})
}

// build returns the target, with its secret.
func (o backupTargetAddOptions) build(ctx context.Context, a *app, name, url string) (backup.Target, error) {
	t := o.target(name, url)
	t.AccessKey, t.NoConditional, t.NoChecksum, t.Created = o.accessKey, o.noConditional, o.noChecksum, a.now()
	var err error
	if o.retain != "" {
		if t.Retain, err = registry.ParseAge(o.retain); err == nil && t.Retain < time.Second {
			err = fmt.Errorf("%w: --retain must be a second at least", vault.ErrInvalid)
		}
		if err != nil {
			return t, err
		}
	}
	switch {
	case o.secretFile != "":
		t.Secret, err = a.readLine(ctx, o.secretFile, "--secret-file", "a secret's file")
	case o.accessKey != "" && !a.interactive():
		err = fmt.Errorf("%w for the secret, so --secret-file FILE is needed", errNeedsFlag)
	case o.accessKey != "":
		t.Secret, err = a.ui.askSecret(ctx, fmt.Sprintf("Secret of access key %s: ", o.accessKey))
	}
	if err != nil {
		return t, err
	}
	return t, t.Validate()
}

// longLock is a retention that is asked about: it cannot be taken back.
const longLock = 366 * 24 * time.Hour

// checkNewTarget refuses a name that is taken, before a probe is written, and asks about a
// long lock.
func checkNewTarget(ctx context.Context, a *app, v *vault.Vault, t backup.Target) error {
	targets, err := backup.Targets(ctx, v)
	if err != nil {
		return err
	}
	for _, other := range targets {
		if other.Name == t.Name {
			return withHint(fmt.Errorf("the target %s %w", t.Name, backup.ErrExists), "To change it, remove it first: rbee-vault backup target remove %s", t.Name)
		}
	}
	if t.Retain > longLock {
		return a.ui.confirm(ctx, fmt.Sprintf("Lock each backup for %s? Nobody can shorten that, and the space is paid for so long.", daysText(t.Retain)))
	}
	return nil
}

// daysText writes a duration in days, where it has no other part.
func daysText(d time.Duration) string {
	if days := d / (24 * time.Hour); days > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return d.String()
}
