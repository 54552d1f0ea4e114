package backup_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

var makeGolden = flag.String("golden", "", "make the golden files in this `directory`, which must be new")

// TestGolden opens what version 0.1.0 wrote: a vault of schema 1 and a backup of format
// 1. Their throwaway identity is beside them. Both must open for ever.
func TestGolden(t *testing.T) {
	if *makeGolden != "" {
		newGolden(t, *makeGolden)
	}
	const dir = "testdata/golden-1"
	identities, err := identity.Parse(t.Context(), bytes.NewReader(golden(t, dir, "recovery.txt")), identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	signer := string(bytes.TrimSpace(golden(t, dir, "signer.txt")))
	want := string(golden(t, dir, "nodes.jsonl"))

	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Identities: identities}
	for _, suffix := range []string{"", ".slots"} {
		if err := os.WriteFile(cfg.Path+suffix, golden(t, dir, "beehives.db"+suffix), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, cfg vault.Config) {
		v := vaulttest.Open(t, cfg)
		if err := v.CheckPages(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		err := v.View(t.Context(), func(tx *vault.Tx) error {
			_, err := tx.VerifyAudit(t.Context())
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := nodeLines(t, v); got != want {
			t.Errorf("%s: nodes\n%s\nwant\n%s", name, got, want)
		}
		if all := content(t, v); len(all.PEMs) != 2 || len(all.HostKeys) != 1 || len(all.Rotations) != 1 || len(all.Targets) != 1 || len(all.Settings) != 1 {
			t.Errorf("%s: %d keys, %d host keys, %d rotations, %d targets and %d settings, want 2, 1, 1, 1 and 1", name, len(all.PEMs), len(all.HostKeys), len(all.Rotations), len(all.Targets), len(all.Settings))
		}
	}
	check("vault", cfg)

	file := golden(t, dir, "backup.tar.gz.age")
	opts := backup.ReadOptions{Identities: identities, Trust: backup.TrustSigners(signer)}
	restored := elsewhere(t, cfg)
	if _, err := backup.Restore(t.Context(), restored, bytes.NewReader(file), backup.RestoreOptions{ReadOptions: opts}); err != nil {
		t.Fatal(err)
	}
	check("backup", restored)
}

func golden(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func nodeLines(t *testing.T, v *vault.Vault) string {
	t.Helper()
	nodes, err := registry.New(v).ListNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, n := range nodes {
		line, err := n.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func newGolden(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg, v := fleet(t)
	file, c := create(t, v)
	nodes := nodeLines(t, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	db, err1 := os.ReadFile(cfg.Path)
	slots, err2 := os.ReadFile(cfg.Path + ".slots")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"beehives.db":       db,
		"beehives.db.slots": slots,
		"backup.tar.gz.age": file,
		"nodes.jsonl":       []byte(nodes),
		"signer.txt":        []byte(c.Signer + "\n"),
		"recovery.txt":      []byte("# A throwaway identity: it opens the golden files beside it, and nothing else.\n" + cfg.Identities[0].(*age.X25519Identity).String() + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
