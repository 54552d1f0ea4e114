package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// backedUp is a vault with nodes, its backup, and the backup's members as stock tools unpack
// them.
type backedUp struct {
	cfg     vault.Config
	v       *vault.Vault
	created backup.Created
	dir     string // identity, recipient, backup.age, members/
}

var backupSizes = []int{1_000, 100_000}

func newBackedUp(b *testing.B, nodes int) *backedUp {
	b.Helper()
	cfg := vaulttest.Config(b)
	s := &backedUp{cfg: cfg, v: vaulttest.Open(b, cfg), dir: b.TempDir()}
	if _, err := registry.New(s.v).Import(b.Context(), registry.ImportSet{Nodes: fleet(nodes)}, registry.ImportOptions{}); err != nil {
		b.Fatal(err)
	}
	identity := cfg.Identities[0].(*age.X25519Identity)
	for name, text := range map[string]string{"identity": identity.String(), "recipient": identity.Recipient().String()} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text+"\n"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s.backup(b)
	s.sh(b, `mkdir members; age -d -i identity backup.age | tar xz -C members`)
	return s
}

func (s *backedUp) sh(b *testing.B, script string) {
	b.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
}

// stock is the same work by stock tools.
func (s *backedUp) stock(b *testing.B, script string) side {
	return repeat(b, func(int) error { s.sh(b, script); return nil })
}

func (s *backedUp) backup(b *testing.B) {
	path := filepath.Join(s.dir, "backup.age")
	os.Remove(path)
	var err error
	if s.created, err = backup.Create(b.Context(), s.v, backup.CreateOptions{Path: path}); err != nil {
		b.Fatal(err)
	}
}

func (s *backedUp) read(b *testing.B) (*bytes.Reader, backup.ReadOptions) {
	file, err := os.ReadFile(filepath.Join(s.dir, "backup.age"))
	if err != nil {
		b.Fatal(err)
	}
	return bytes.NewReader(file), backup.ReadOptions{Identities: s.cfg.Identities, Trust: backup.TrustSigners(s.created.Signer)}
}

// compareBackups is compare for operations that take longer than a turn.
func compareBackups(b *testing.B, ours func(*backedUp) side, stock string) {
	for _, size := range backupSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := newBackedUp(b, size)
			compareBy(b, 1, ours(s), s.stock(b, stock))
		})
	}
}

// BenchmarkBackup writes a backup. The reference packs the same members.
func BenchmarkBackup(b *testing.B) {
	compareBackups(b, func(s *backedUp) side {
		return repeat(b, func(int) error { s.backup(b); return nil })
	}, `tar cf - -C members . | gzip | age -R recipient >reference.age; sync reference.age`)
}

// BenchmarkVerify verifies a backup. The reference is what README.txt in the backup says.
func BenchmarkVerify(b *testing.B) {
	compareBackups(b, func(s *backedUp) side {
		return repeat(b, func(int) error {
			file, opts := s.read(b)
			_, err := backup.Verify(b.Context(), file, opts)
			return err
		})
	}, `rm -rf out; mkdir out; age -d -i identity backup.age | tar xz -C out; cd out; sha256sum --quiet -c SHA256SUMS`)
}

// BenchmarkRestore makes a vault of a backup. The reference unpacks the members.
func BenchmarkRestore(b *testing.B) {
	compareBackups(b, func(s *backedUp) side {
		return func(n int) (took time.Duration) {
			for range n {
				target := s.cfg
				target.Path = filepath.Join(vaulttest.Dir(b), "beehives.db")
				file, opts := s.read(b)
				start := time.Now()
				if _, err := backup.Restore(b.Context(), target, file, backup.RestoreOptions{ReadOptions: opts}); err != nil {
					b.Fatal(err)
				}
				took += time.Since(start)
				os.RemoveAll(filepath.Dir(target.Path))
			}
			return took
		}
	}, `rm -rf out; mkdir out; age -d -i identity backup.age | tar xz -C out; sync -f out`)
}
