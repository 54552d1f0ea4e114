package bench

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

var (
	memoryNodes = flag.Int("memory-nodes", 10_000, "how many `nodes` BenchmarkMemory has; 1000000 takes minutes")
	memoryChild = flag.String("memory-child", "", "used by BenchmarkMemory for its processes")
)

// BenchmarkMemory reports the peak of the memory of a whole process that makes, verifies or
// restores a backup, or imports nodes.
func BenchmarkMemory(b *testing.B) {
	s := newMemoryDir(b)
	for _, do := range []string{"backup", "verify", "restore", "import"} {
		if do == "import" && *memoryNodes > registry.MaxImport {
			continue
		}
		b.Run(fmt.Sprint(do, "/", *memoryNodes), func(b *testing.B) {
			var peak int64
			for b.Loop() {
				cmd := exec.Command(os.Args[0], "-test.run", "^$", "-memory-child", do+":"+s)
				cmd.Stderr = os.Stderr
				out, err := cmd.Output()
				var kB int64
				if _, e := fmt.Sscan(string(out), &kB); err != nil || e != nil {
					b.Fatalf("%v, %v: %s", err, e, out)
				}
				peak = max(peak, kB)
			}
			b.ReportMetric(float64(peak)/1024, "peak-MB")
		})
	}
}

// newMemoryDir makes a directory with a vault and what the child processes need.
func newMemoryDir(b *testing.B) string {
	b.Helper()
	cfg := vaulttest.Config(b)
	dir := filepath.Dir(cfg.Path)
	v := vaulttest.Open(b, cfg)
	var lines bytes.Buffer
	for first := 0; first < *memoryNodes; first += 10_000 {
		nodes := fleet(min(first+10_000, *memoryNodes))[first:]
		err := v.Update(b.Context(), func(tx *vault.Tx) error {
			if err := registry.InsertNodes(b.Context(), tx, nodes...); err != nil {
				return err
			}
			return tx.Audit(b.Context(), vault.Event{Action: registry.ActionAddNode})
		})
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range nodes {
			line, err := n.MarshalJSON()
			if err != nil {
				b.Fatal(err)
			}
			lines.Write(append(line, '\n'))
		}
	}
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
	for name, data := range map[string][]byte{"identity": []byte(cfg.Identities[0].(*age.X25519Identity).String()), "nodes": lines.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

// runMemoryChild does what one process of BenchmarkMemory does.
func runMemoryChild(ctx context.Context, what string) error {
	do, dir, _ := strings.Cut(what, ":")
	text, err := os.ReadFile(filepath.Join(dir, "identity"))
	if err != nil {
		return err
	}
	identity, err := age.ParseX25519Identity(string(text))
	if err != nil {
		return err
	}
	cfg := vault.Config{Path: filepath.Join(dir, "beehives.db"), Identities: []age.Identity{identity}, ConfirmSigner: vaulttest.AcceptSigner}
	path := filepath.Join(dir, "backup.age")
	trust := backup.ReadOptions{Identities: cfg.Identities, Trust: func(context.Context, backup.Claim) error { return nil }}
	switch do {
	case "backup":
		v, err := vault.Open(ctx, cfg)
		if err != nil {
			return err
		}
		os.Remove(path)
		if _, err := backup.Create(ctx, v, backup.CreateOptions{Path: path}); err != nil {
			return err
		}
		return v.Close()
	case "import":
		return importNodes(ctx, dir, cfg)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if do == "verify" {
		_, err = backup.Verify(ctx, file, trust)
		return err
	}
	if cfg.Path, err = newVaultPath(dir); err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(cfg.Path))
	_, err = backup.Restore(ctx, cfg, file, backup.RestoreOptions{ReadOptions: trust})
	return err
}

// importNodes imports the file of nodes into a new vault.
func importNodes(ctx context.Context, dir string, cfg vault.Config) (err error) {
	if cfg.Path, err = newVaultPath(dir); err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(cfg.Path))
	recipient := cfg.Identities[0].(*age.X25519Identity).Recipient().String()
	if _, err := vault.Create(ctx, cfg, vault.CreateOptions{Recipients: []string{recipient}}); err != nil {
		return err
	}
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(dir, "nodes"))
	if err != nil {
		return err
	}
	defer file.Close()
	set, err := registry.ReadNDJSON(file)
	if err != nil {
		return err
	}
	if _, err := registry.New(v).Import(ctx, set, registry.ImportOptions{Source: "bench"}); err != nil {
		return err
	}
	return v.Close()
}

func newVaultPath(dir string) (string, error) {
	other, err := os.MkdirTemp(dir, "vault")
	return filepath.Join(other, "beehives.db"), err
}

// peakMemory returns the peak of this process's resident memory in kB. That of the kernel's
// accounting of children begins with what the parent had.
func peakMemory() (string, error) {
	status, err := os.ReadFile("/proc/self/status")
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	return strings.TrimSpace(peak), err
}
