package backup

import (
	"bufio"
	"bytes"
	"context"
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
		{"status", func() error { return r.UpdateStatus(ctx, n.Name, registry.StatusOnline) }, false},
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
	c, err := Create(ctx, v, CreateOptions{Writer: new(bytes.Buffer), Progress: func(done, total int64) {
		if done == total {
			cancel()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	records, err := List(t.Context(), v)
	if err != nil || len(records) != 1 || records[0].Path != "-" || records[0].SHA256 != c.SHA256 {
		t.Errorf("%+v, %v", records, err)
	}
}
