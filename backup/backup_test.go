package backup_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func TestRoundTrip(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	r := registry.New(v)
	n := registry.Node{Name: "hive-01", SSHHost: "hive-01.example.org", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt/rbee", Devices: map[string]uint32{"cuda": 2}}
	if err := r.CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	c, err := backup.Create(t.Context(), v, backup.CreateOptions{Dir: filepath.Join(filepath.Dir(cfg.Path), "backups"), Program: "test"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cfg2 := cfg
	cfg2.Path = filepath.Join(vaulttest.Dir(t), "beehives.db")
	restored, err := backup.Restore(t.Context(), cfg2, f, backup.RestoreOptions{ReadOptions: backup.ReadOptions{Identities: cfg.Identities, Trust: backup.TrustSigners(vault.Fingerprint(c.Signer))}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", restored)
	v2 := vaulttest.Open(t, cfg2)
	want, _ := r.ListNodes(t.Context())
	got, err := registry.New(v2).ListNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
