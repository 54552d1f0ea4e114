package backup_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestBackupOfOlderPages: an older page with an older row must not get into a backup.
func TestBackupOfOlderPages(t *testing.T) {
	const page = 4096
	cfg := vaulttest.Config(t)
	ctx := t.Context()
	change := func(do func(r *registry.Registry) error) []byte {
		t.Helper()
		v := vaulttest.Open(t, cfg)
		if err := errors.Join(do(registry.New(v)), v.Close()); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	n := registry.Node{Name: "hive-01", SSHHost: "older.example.org", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/rbee.git", GitBranch: "main", InstallPath: "/opt/rbee", Status: registry.StatusUnknown}
	older := change(func(r *registry.Registry) error { return r.CreateNode(ctx, n) })
	newer := change(func(r *registry.Registry) error {
		return r.UpdateNode(ctx, n.Name, func(n *registry.Node) error {
			n.SSHHost = "newer.example.org"
			return nil
		})
	})
	replayed := 0
	for at := 0; at < min(len(older), len(newer)); at += page {
		mixed := bytes.Clone(newer)
		copy(mixed[at:at+page], older[at:])
		if err := os.WriteFile(cfg.Path, mixed, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := vault.Open(ctx, cfg)
		if err != nil {
			continue // refused already when the vault was opened
		}
		list, err := registry.New(v).ListNodes(ctx)
		_, createErr := backup.Create(ctx, v, backup.CreateOptions{Writer: new(bytes.Buffer)})
		if err == nil && list[0].SSHHost == "older.example.org" {
			replayed++
			if !errors.Is(createErr, vault.ErrRollback) {
				t.Errorf("page %d: %v, want ErrRollback", at/page, createErr)
			}
		}
		v.Close()
	}
	if replayed == 0 {
		t.Error("no page brought the older row back")
	}
}
