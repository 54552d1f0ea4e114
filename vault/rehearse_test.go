package vault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// rehearse tries a restore of an empty backup out, for one recipient.
func rehearse(ctx context.Context, v *vault.Vault, identity *age.X25519Identity, use func(*vault.Vault, *vault.Slot) error) error {
	return v.Rehearse(ctx, vault.Rehearsal{
		Identities: []age.Identity{identity},
		Fill: func(context.Context, *vault.Tx) (vault.Backup, error) {
			slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: identity.Recipient().String(), Created: time.UnixMilli(1).UTC()}
			return vault.Backup{Slots: []vault.Slot{slot}, OriginVaultID: "x", OriginSigner: "y"}, nil
		},
		Use: func(_ context.Context, restored *vault.Vault, opener *vault.Slot) error { return use(restored, opener) },
	})
}

// TestRehearse: the throwaway vault opens by the identity, is nobody else's, and leaves nothing:
// no file, and no slots file even while it is there.
func TestRehearse(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	identity := newIdentity(t)
	before := filesIn(t, filepath.Dir(cfg.Path))
	failure := errors.New("no")
	for _, want := range []error{nil, failure} {
		var made *vault.Vault
		err := rehearse(t.Context(), v, identity, func(restored *vault.Vault, opener *vault.Slot) error {
			made = restored
			if opener == nil || opener.Recipient != identity.Recipient().String() {
				t.Errorf("opened by %+v", opener)
			}
			if _, err := os.Stat(restored.Path() + ".slots"); err == nil {
				t.Error("it has a slots file")
			}
			if info, err := os.Stat(filepath.Dir(restored.Path())); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			var meta vault.Meta
			err := restored.View(t.Context(), func(tx *vault.Tx) (err error) {
				meta, err = tx.Meta(t.Context())
				return err
			})
			if err != nil || meta.Keyring || meta.OriginVaultID != "x" {
				t.Errorf("%+v, %v", meta, err)
			}
			other := vault.Config{Path: restored.Path(), Identities: cfg.Identities, Wait: time.Millisecond}
			if _, err := vault.Open(t.Context(), other); err == nil {
				t.Error("it opens by another identity")
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Error(err)
		}
		if err := made.Close(); !errors.Is(err, vault.ErrClosed) {
			t.Errorf("it is still open: %v", err)
		}
		after := slices.DeleteFunc(filesIn(t, filepath.Dir(cfg.Path)), func(name string) bool { return name == "beehives.db.drill.lock" })
		if !slices.Equal(before, after) {
			t.Errorf("%q, before %q", after, before)
		}
	}
}

// TestRehearseChecks: rows that do not hold together fail the rehearsal, whoever wrote them.
func TestRehearseChecks(t *testing.T) {
	v := vaulttest.New(t)
	identity := newIdentity(t)
	err := v.Rehearse(t.Context(), vault.Rehearsal{
		Identities: []age.Identity{identity},
		Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
			_, err := tx.ExecContext(ctx, `
				INSERT INTO audit_log (seq, at, actor, via, action, digest, prev_hash, hash)
				VALUES (1, 1, 'x', 'x', 'x', '0', zeroblob(32), zeroblob(32))`)
			slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: identity.Recipient().String()}
			return vault.Backup{Slots: []vault.Slot{slot}}, err
		},
		Use: func(context.Context, *vault.Vault, *vault.Slot) error { return nil },
	})
	if !errors.Is(err, vault.ErrAudit) {
		t.Error(err)
	}
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestRehearseLeftovers: what a kill left is named by doctor, removed by the next rehearsal or with
// the vault. A file of somebody else's in that place is not touched.
func TestRehearseLeftovers(t *testing.T) {
	cfg := vaulttest.Config(t)
	dir := cfg.Path + ".drill"
	leave := func(name string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), []byte("noise"))
	}
	warned := func() bool {
		t.Helper()
		found, err := vault.Examine(t.Context(), cfg, vault.ExamineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(found, func(f vault.Finding) bool { return strings.Contains(f.Message, dir) })
	}
	run := func() error {
		v := vaulttest.Open(t, cfg)
		defer v.Close()
		return rehearse(t.Context(), v, newIdentity(t), func(*vault.Vault, *vault.Slot) error { return nil })
	}
	leave("beehives.db.new")
	if !warned() {
		t.Error("doctor does not name it")
	}
	if err := run(); err != nil || warned() {
		t.Errorf("%v, warned %t", err, warned())
	}
	leave("somebody.txt")
	if err := run(); err == nil {
		t.Error("it took somebody's directory")
	}
	if _, err := os.Stat(filepath.Join(dir, "somebody.txt")); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	leave("beehives.db")
	if _, err := vault.Destroy(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it outlives its vault")
	}
}

// TestRehearseAlone: one rehearsal at a time, and none in a file that was set aside.
func TestRehearseAlone(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Wait = 20 * time.Millisecond
	lock := durable.NewLock(cfg.Path + ".drill.lock")
	if ok, err := lock.TryExclusive(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	v := vaulttest.Open(t, cfg)
	use := func(*vault.Vault, *vault.Slot) error { return nil }
	if err := rehearse(t.Context(), v, newIdentity(t), use); !errors.Is(err, vault.ErrLocked) {
		t.Error(err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := rehearse(t.Context(), v, newIdentity(t), use); err != nil {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := rehearse(t.Context(), v, newIdentity(t), use); !errors.Is(err, vault.ErrClosed) {
		t.Error(err)
	}
}

// TestRehearseBehindLink: what is in the place of the drill's directory, and is none, stays, and
// so does what it leads to.
func TestRehearseBehindLink(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	if err := os.Symlink(filepath.Dir(cfg.Path), cfg.Path+".drill"); err != nil {
		t.Fatal(err)
	}
	identity := cfg.Identities[0].(*age.X25519Identity)
	if err := rehearse(t.Context(), v, identity, func(*vault.Vault, *vault.Slot) error { return nil }); err == nil {
		t.Error("it went through the link")
	}
	for _, suffix := range []string{"", ".slots", ".drill"} {
		if _, err := os.Lstat(cfg.Path + suffix); err != nil {
			t.Error(err)
		}
	}
}
