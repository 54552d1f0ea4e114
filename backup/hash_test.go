package backup

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestHashConfiguration: whatever the content digest covers changes the hash, and no state does.
func TestHashConfiguration(t *testing.T) {
	ctx := t.Context()
	v := vaulttest.New(t)
	r := registry.New(v)
	n := registry.Node{Name: "hive-01", SSHHost: "h", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
	pin := registry.HostKey{Node: n.Name, Type: "ssh-ed25519", PublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW", FirstSeen: time.UnixMilli(1).UTC(), LastSeen: time.UnixMilli(2).UTC()}
	exec := func(statement string) func() error {
		return func() error {
			return v.Update(ctx, func(tx *vault.Tx) error {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return err
				}
				return tx.Audit(ctx, vault.Event{Action: vault.Action("test")})
			})
		}
	}
	last := ""
	for _, step := range []struct {
		name    string
		change  func() error
		differs bool
	}{
		{"nothing", func() error { return nil }, true}, // from "" to the first
		{"node", func() error { return r.CreateNode(ctx, n) }, true},
		{"status", func() error { return r.UpdateStatus(ctx, n.Name, registry.StatusOnline) }, false},
		{"contact", exec(`UPDATE beehives SET last_connected_unix = 5`), false},
		{"note", exec(`INSERT INTO node_details (node_name, note) VALUES ('hive-01', 'x')`), true},
		{"label", exec(`INSERT INTO node_labels (node_name, key, value) VALUES ('hive-01', 'x', 'y')`), true},
		{"SSH key", func() error { _, err := r.GenerateSSHKey(ctx, "ed25519", "", n.Name); return err }, true},
		{"use", exec(`UPDATE ssh_keys SET used = 5`), false},
		{"comment", exec(`UPDATE ssh_keys SET comment = 'x'`), true},
		{"host key", func() error {
			return v.Update(ctx, func(tx *vault.Tx) error {
				if err := registry.InsertHostKeys(ctx, tx, pin); err != nil {
					return err
				}
				return tx.Audit(ctx, vault.Event{Action: vault.Action("test")})
			})
		}, true},
		{"seen", exec(`UPDATE host_keys SET last_seen = 9`), false},
		{"rotation", func() error { _, err := r.BeginKeyRotation(ctx, n.Name); return err }, true},
		{"target", func() error { return AddTarget(ctx, v, Target{Name: "disk", URL: "dir:/srv"}) }, true},
		{"address", exec(`UPDATE backup_targets SET url = 'dir:/mnt'`), true},
		{"setting", func() error { return r.SetSetting(ctx, registry.Setting{Name: registry.SettingSSHUser, Value: "ops"}) }, true},
		{"slot", exec(`UPDATE slots SET label = 'x'`), true},
	} {
		if err := step.change(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		now, err := hashNow(ctx, v)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if (now != last) != step.differs {
			t.Errorf("%s: it differs: %t", step.name, now != last)
		}
		last = now
	}
}

func hashNow(ctx context.Context, v *vault.Vault) (hash string, err error) {
	err = v.View(ctx, func(tx *vault.Tx) error {
		hash, err = hashConfiguration(ctx, tx)
		return err
	})
	return hash, err
}

// TestCompareRestored: a restored vault that is not what the manifest says, or not what the vault
// holds, proves nothing.
func TestCompareRestored(t *testing.T) {
	ctx := t.Context()
	v := vaulttest.New(t)
	c, err := Create(ctx, v, CreateOptions{Writer: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	// The vault itself stands in for what was restored from its backup.
	for name, tt := range map[string]struct {
		change func(*drilling)
		want   error
	}{
		"nothing":  {func(*drilling) {}, nil},
		"nodes":    {func(d *drilling) { d.manifest.Counts.Nodes++ }, ErrNotProven},
		"slots":    {func(d *drilling) { d.manifest.Counts.Slots++ }, ErrNotProven},
		"targets":  {func(d *drilling) { d.manifest.Counts.Targets++ }, ErrNotProven},
		"settings": {func(d *drilling) { d.manifest.Counts.Settings++ }, ErrNotProven},
		"head":     {func(d *drilling) { d.manifest.AuditHash = hashOf(nil) }, ErrNotProven},
		"row":      {func(d *drilling) { d.manifest.AuditSeq++ }, ErrNotProven},
	} {
		d := &drilling{vault: v, manifest: c.Manifest}
		tt.change(d)
		if err := d.compare(ctx, v); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := &drilling{vault: v, record: &c.Record}
	now, err := hashNow(ctx, v)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.compareLive(ctx, now); err != nil {
		t.Error(err)
	}
	if err := d.compareLive(ctx, hashOf(nil)); !errors.Is(err, ErrNotProven) {
		t.Errorf("the rows of another vault: %v", err)
	}
}
