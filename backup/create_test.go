package backup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestUnchanged: a backup is unchanged if nothing but the audit log and the list of
// backups differs from the one before.
func TestUnchanged(t *testing.T) {
	ctx := t.Context()
	v := vaulttest.Open(t, vaulttest.Config(t))
	r := registry.New(v)
	n := registry.Node{Name: "hive-01", SSHHost: "h", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
	for _, step := range []struct {
		name      string
		change    func() error
		unchanged bool
	}{
		{"first", func() error { return nil }, false},
		{"nothing", func() error { return nil }, true},
		{"node", func() error { return r.CreateNode(ctx, n) }, false},
		{"SSH key", func() error {
			_, err := r.GenerateSSHKey(ctx, "ed25519", "", n.Name)
			return err
		}, false},
		{"audit row", func() error { return r.RefuseSSHKeyExport(ctx, "SHA256:x", "test") }, true},
		{"status", func() error { return r.UpdateStatus(ctx, n.Name, registry.StatusOnline) }, true},
		{"slot", func() error {
			identity, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			_, err = v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: identity.Recipient().String()})
			return err
		}, false},
		{"nothing again", func() error { return nil }, true},
	} {
		if err := step.change(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		c, err := Create(ctx, v, CreateOptions{Writer: new(bytes.Buffer)})
		if err != nil || c.Unchanged != step.unchanged {
			t.Errorf("%s: unchanged is %t, %v", step.name, c.Unchanged, err)
		}
	}
}

// TestWriterIsFlushed: a Writer with a buffer has the whole file afterwards.
func TestWriterIsFlushed(t *testing.T) {
	v := vaulttest.Open(t, vaulttest.Config(t))
	var b bytes.Buffer
	c, err := Create(t.Context(), v, CreateOptions{Writer: bufio.NewWriterSize(&b, 1<<20)})
	if err != nil || int64(b.Len()) != c.Size || c.Size == 0 {
		t.Errorf("%d of %d bytes, %v", b.Len(), c.Size, err)
	}
}

// TestCancelledAtTheEnd: a backup whose file is in place is recorded, even if its
// context is cancelled then.
func TestCancelledAtTheEnd(t *testing.T) {
	v := vaulttest.Open(t, vaulttest.Config(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, err := Create(ctx, v, CreateOptions{Writer: cancelAtFlush{io.Discard, cancel}})
	if err != nil {
		t.Fatal(err)
	}
	records, err := List(t.Context(), v)
	if err != nil || len(records) != 1 || records[0].Copies[0].Name != "-" || records[0].SHA256 != c.SHA256 {
		t.Errorf("%+v, %v", records, err)
	}
}

// cancelAtFlush is a Writer with a buffer. It cancels when it has the whole file.
type cancelAtFlush struct {
	io.Writer
	cancel func()
}

func (w cancelAtFlush) Flush() error {
	w.cancel()
	return nil
}

// TestAuditLogOfABackup: a vault whose audit log is broken makes no backup, which could not be
// restored.
func TestAuditLogOfABackup(t *testing.T) {
	v := vaulttest.New(t)
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		_, err := tx.ExecContext(t.Context(), `UPDATE audit_log SET actor = 'another' WHERE seq = 1`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), v, CreateOptions{Writer: new(bytes.Buffer)}); !errors.Is(err, vault.ErrAudit) {
		t.Errorf("%v, want ErrAudit", err)
	}
}

// TestReadingsDiffer: a page that is replaced between two readings of one backup is noticed.
func TestReadingsDiffer(t *testing.T) {
	v := vaulttest.New(t)
	r := registry.New(v)
	n := registry.Node{Name: "hive-01", SSHHost: "h", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
	signer, _ := fixedSigner(t)
	err := r.CreateNode(t.Context(), n)
	if err == nil {
		_, err = r.TrustHostKey(t.Context(), n.Name, signer.PublicKey())
	}
	if err == nil {
		_, err = r.GenerateSSHKey(t.Context(), "ed25519", "", n.Name)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = v.View(t.Context(), func(tx *vault.Tx) error {
		a := &archiveWriter{tx: tx, addresses: newHashSet(1)}
		if err := a.writeKnownHosts(t.Context(), io.Discard); !errors.Is(err, vault.ErrDamaged) {
			t.Errorf("a node that was not there before: %v", err)
		}
		a.addresses.add(n.Name, "another")
		if err := a.writeKnownHosts(t.Context(), io.Discard); !errors.Is(err, vault.ErrDamaged) {
			t.Errorf("another address than before: %v", err)
		}
		a.addresses.add(n.Name, n.KnownHostsAddress())
		if err := a.writeKnownHosts(t.Context(), io.Discard); err != nil {
			t.Error(err)
		}
		a.manifest.Counts.SSHKeys = 2
		if err := a.writeSSHKeys(t.Context(), io.Discard); !errors.Is(err, vault.ErrDamaged) {
			t.Errorf("one key less than was counted: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
