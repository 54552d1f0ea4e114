package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// restoreOver restores over the file in place, whatever it is.
func restoreOver(t *testing.T, cfg vault.Config) (vault.RestoredVault, error) {
	t.Helper()
	identity := newIdentity(t)
	return vault.Restore(t.Context(), cfg, vault.RestoreOptions{
		Replace:         true,
		ConfirmUnproven: func(context.Context, vault.UnprovenVault) error { return nil },
		Fill: func(_ context.Context, tx *vault.Tx) (vault.Backup, error) {
			slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: identity.Recipient().String(), Created: tx.Now()}
			return vault.Backup{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, nil
		},
	})
}

// TestAsideIsWhole: a database that no key at hand opens is set aside with its log. The log may
// have rows that exist nowhere else.
func TestAsideIsWhole(t *testing.T) {
	cfg := vaulttest.Config(t)
	before := read(t, cfg.Path)
	os.Remove(cfg.Path + ".slots") // nothing opens it, and its recipients are not known
	for _, suffix := range []string{"-wal", "-journal"} {
		write(t, cfg.Path+suffix, []byte("rows in "+suffix))
	}
	done, err := restoreOver(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if string(read(t, done.Aside)) != string(before) {
		t.Error("the database set aside is not the one that was in place")
	}
	for _, suffix := range []string{"-wal", "-journal"} {
		if string(read(t, done.Aside+suffix)) != "rows in "+suffix {
			t.Errorf("%s is not what it was", suffix)
		}
		if exists(cfg.Path + suffix) {
			t.Errorf("%s is left beside the new database", suffix)
		}
	}
}

// TestSlotsFileOfALostDatabase: if the lost database is found again, its slots file is needed
// to open it.
func TestSlotsFileOfALostDatabase(t *testing.T) {
	cfg := vaulttest.Config(t)
	slots := read(t, cfg.Path+".slots")
	if err := os.Remove(cfg.Path); err != nil {
		t.Fatal(err)
	}
	// The backup has none of the recipients that the slots file names.
	if _, err := restoreOver(t, cfg); !errors.Is(err, vault.ErrInvalid) {
		t.Fatal(err)
	}
	if string(read(t, cfg.Path+".slots")) != string(slots) {
		t.Error("a restore that failed changed the slots file")
	}
	recipient := cfg.Identities[0].(*age.X25519Identity).Recipient().String()
	_, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{
		ConfirmUnproven: func(context.Context, vault.UnprovenVault) error { return nil },
		Fill: func(_ context.Context, tx *vault.Tx) (vault.Backup, error) {
			slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: recipient, Created: tx.Now()}
			return vault.Backup{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if copies := foreignCopies(t, cfg); len(copies) != 1 || string(read(t, copies[0])) != string(slots) {
		t.Errorf("set aside: %v", copies)
	}
}

// TestReplaceSeesChanges: while the operator is asked about the vault in place, another process
// replaces that database, or removes a recipient from its slots file.
func TestReplaceSeesChanges(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, cfg vault.Config){
		"database": func(t *testing.T, cfg vault.Config) { write(t, cfg.Path, otherDatabase()) },
		"gone":     func(t *testing.T, cfg vault.Config) { os.Remove(cfg.Path) },
		"recipients": func(t *testing.T, cfg vault.Config) {
			text := strings.Replace(string(read(t, cfg.Path+".slots")), cfg.Identities[0].(*age.X25519Identity).Recipient().String(), otherRecipient, 1)
			write(t, cfg.Path+".slots", []byte(text))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := vaulttest.Config(t)
			data := read(t, cfg.Path)
			clear(data[16:]) // so it does not open
			write(t, cfg.Path, data)
			_, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{
				Replace: true,
				ConfirmUnproven: func(context.Context, vault.UnprovenVault) error {
					change(t, cfg)
					return nil
				},
				Fill: func(context.Context, *vault.Tx) (vault.Backup, error) {
					t.Error("the restore goes on")
					return vault.Backup{}, errors.New("it should not")
				},
			})
			if !errors.Is(err, vault.ErrLocked) {
				t.Errorf("%v, want ErrLocked", err)
			}
		})
	}
}

// TestSideFilesWithoutADatabase: SQLite's own files show that a database is missing.
func TestSideFilesWithoutADatabase(t *testing.T) {
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}
		write(t, cfg.Path+suffix, []byte("rows"))
		_, err := vault.Create(t.Context(), cfg, vault.CreateOptions{Recipients: []string{otherRecipient}})
		if !errors.Is(err, vault.ErrMissing) {
			t.Errorf("create beside %s: %v, want ErrMissing", suffix, err)
		}
		if _, err := restoreOver(t, cfg); !errors.Is(err, vault.ErrMissing) {
			t.Errorf("restore beside %s: %v, want ErrMissing", suffix, err)
		}
		if string(read(t, cfg.Path+suffix)) != "rows" {
			t.Errorf("%s was changed", suffix)
		}
	}
}

// TestCopyOfTheDatabaseStays: the file in the place of a new database begins with the key id of
// the database in place. Somebody copied it there.
func TestCopyOfTheDatabaseStays(t *testing.T) {
	cfg := vaulttest.Config(t)
	write(t, cfg.Path+".new", read(t, cfg.Path))
	node(t, cfg, "hive-01")
	if !exists(cfg.Path + ".new") {
		t.Fatal("an open removed it")
	}
	v := vaulttest.Open(t, cfg)
	if _, err := v.Rotate(t.Context()); !errors.Is(err, vault.ErrFileExists) {
		t.Errorf("a rotation builds over it: %v", err)
	}
	if !exists(cfg.Path + ".new") {
		t.Error("a rotation removed it")
	}
}

// TestMovedBetweenLinkAndRemove: an init was killed while its database had both names, and the
// database was moved away. The second name is not a leftover, and its key must not be deleted.
func TestMovedBetweenLinkAndRemove(t *testing.T) {
	s := newCrashSite(t, true)
	counted := &faulttest.Steps{}
	if err := create(t.Context(), s.copy(t), counted); err != nil {
		t.Fatal(err)
	}
	s.killed(t, "init", "", 1+slices.Index(counted.Names(), "link beehives.db"), faulttest.KillAfter)
	elsewhere := crashSite{vaulttest.Dir(t)}
	if err := os.Mkdir(elsewhere.dir+"/v", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.db(), elsewhere.db()); err != nil {
		t.Fatal(err)
	}
	write(t, elsewhere.db()+".slots", read(t, s.db()+".slots"))
	if err := create(t.Context(), s, &faulttest.Steps{}); err == nil {
		t.Error("another vault was made in its place")
	}
	if err := os.Remove(s.db() + ".new"); err != nil { // the second name: two are refused
		t.Fatal(err)
	}
	cfg := s.configBy(byKeyring, &faulttest.Steps{})
	cfg.Path = elsewhere.db()
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Errorf("the moved vault: %v", err)
	}
}

// TestSideFilesAfterACheckpoint: if one of SQLite's files is not removed, no copy of the
// database is known to be complete. So nothing is migrated.
func TestSideFilesAfterACheckpoint(t *testing.T) {
	cfg := vaulttest.Config(t)
	before := read(t, cfg.Path)
	journal := cfg.Path + "-journal"
	write(t, journal, make([]byte, 16)) // SQLite leaves it, because it is not a hot journal
	if err := openAndClose(t.Context(), nextSchema(cfg)); !errors.Is(err, vault.ErrLocked) || !strings.Contains(err.Error(), journal) {
		t.Errorf("%v, want ErrLocked that names the file", err)
	}
	if copies, _ := filepath.Glob(cfg.Path + ".before-*"); len(copies) > 0 {
		t.Errorf("copied: %v", copies)
	}
	if string(read(t, cfg.Path)) != string(before) {
		t.Error("the vault was changed")
	}
}

// backupOf returns a backup with these recipients.
func backupOf(recipients ...string) func(context.Context, *vault.Tx) (vault.Backup, error) {
	return func(_ context.Context, tx *vault.Tx) (vault.Backup, error) {
		b := vault.Backup{OriginVaultID: "origin"}
		for n, r := range recipients {
			b.Slots = append(b.Slots, vault.Slot{ID: fmt.Sprintf("%016x", n+1), Kind: vault.SlotRecipient, Recipient: r, Created: tx.Now()})
		}
		return b, nil
	}
}

// TestReplacedWithoutKeyring: the keyring records that a vault was replaced, even if the new
// vault does not use it.
func TestReplacedWithoutKeyring(t *testing.T) {
	cfg, k, identity := keyringVault(t)
	old := photograph(t, cfg)
	opts := vault.RestoreOptions{Replace: true, NoKeyring: true, Fill: backupOf(identity.Recipient().String())}
	if _, err := vault.Restore(t.Context(), cfg, opts); err != nil {
		t.Fatal(err)
	}
	if got := anchorOf(t, k); !strings.HasSuffix(got, ":aside") {
		t.Errorf("anchor %q, want it set aside", got)
	}
	old("", ".slots")
	if err := openAndClose(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("its files put back: %v, want ErrRollback", err)
	}
}

// TestRestoreVouchesByPassphrase: an identity under a passphrase is open after the backup is
// read, and then it vouches.
func TestRestoreVouchesByPassphrase(t *testing.T) {
	secret := newIdentity(t)
	r, err := age.NewScryptRecipient("secret")
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(1)
	var file bytes.Buffer
	w, err := age.Encrypt(&file, r)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, secret.String())
	w.Close()
	ids, err := identity.Parse(t.Context(), &file, identity.Options{Passphrase: passphrases(new(int), "secret")})
	if err != nil {
		t.Fatal(err)
	}
	var message bytes.Buffer
	if w, err = age.Encrypt(&message, secret.Recipient()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Identities: ids}
	_, err = vault.Restore(t.Context(), cfg, vault.RestoreOptions{Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
		if _, err := age.Decrypt(&message, ids...); err != nil {
			return vault.Backup{}, err
		}
		return backupOf(secret.Recipient().String())(ctx, tx)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(t.Context(), cfg); err != nil { // nobody is asked about the signer
		t.Error(err)
	}
}

// TestReplaceDamaged: a vault with a damaged page is replaced, whether or not it still opens.
// It is set aside unchanged.
func TestReplaceDamaged(t *testing.T) {
	const page = 4096
	whole := read(t, vaulttest.Config(t).Path)
	opened := 0
	for at := 0; at < len(whole); at += page {
		cfg := vaulttest.Config(t)
		data := read(t, cfg.Path)
		data[at+page/2] ^= 1
		write(t, cfg.Path, data)
		if openAndClose(t.Context(), cfg) == nil {
			opened++
			data = read(t, cfg.Path)
		}
		own := cfg.Identities[0].(*age.X25519Identity).Recipient().String()
		done, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{
			Replace:         true,
			ConfirmUnproven: func(context.Context, vault.UnprovenVault) error { return nil },
			Fill:            backupOf(own),
		})
		if err != nil {
			t.Errorf("page %d: %v", at/page+1, err)
			continue
		}
		if !bytes.Equal(read(t, done.Aside), data) {
			t.Errorf("page %d: what is set aside is not what was in place", at/page+1)
		}
	}
	if pages := len(whole) / page; opened == 0 || opened == pages {
		t.Errorf("%d of %d opened: want some of both", opened, pages)
	}
}

// getting reports each Get and GetAll.
type getting struct {
	faulttest.Keyring
	got chan struct{}
}

func (g getting) Get(ctx context.Context, account string) (string, error) {
	value, err := g.Keyring.Get(ctx, account)
	g.got <- struct{}{}
	return value, err
}

func (g getting) GetAll(ctx context.Context, accounts ...string) ([]string, error) {
	values, err := g.Keyring.GetAll(ctx, accounts...)
	g.got <- struct{}{}
	return values, err
}

// TestReplaceSeesRemovedReader removes a recipient while a restore waits for the lock. That
// reader must not come back.
func TestReplaceSeesRemovedReader(t *testing.T) {
	cfg, k, reader := keyringVault(t)
	v := vaulttest.Open(t, cfg)
	addSlot(t, v, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient})
	m, slots := slotsOf(t, v)
	v.Close()
	lock := durable.NewLock(cfg.Path + ".lock") // so the restore waits
	if err := lock.Shared(t.Context()); err != nil {
		t.Fatal(err)
	}
	replacing := cfg
	g := getting{k, make(chan struct{}, 100)}
	replacing.Keyring = g
	var done vault.RestoredVault
	failed := make(chan error)
	go func() {
		var err error
		done, err = vault.Restore(t.Context(), replacing, vault.RestoreOptions{Replace: true, Fill: backupOf(reader.Recipient().String(), otherRecipient)})
		failed <- err
	}()
	<-g.got // for a new key id, and
	<-g.got // for the key of the vault in place, which is open by now
	var err error
	for v, err = vault.Open(t.Context(), cfg); errors.Is(err, vault.ErrAlreadyOpen); v, err = vault.Open(t.Context(), cfg) {
	}
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(slots, func(s vault.Slot) bool { return s.Recipient == reader.Recipient().String() })
	if err := v.RemoveSlot(t.Context(), slots[i].ID); err != nil {
		t.Fatal(err)
	}
	v.Close()
	lock.Unlock()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if len(done.LeftOut) != 1 || done.LeftOut[0].Recipient != reader.Recipient().String() || done.VaultID == m.VaultID {
		t.Errorf("left out: %v", done.LeftOut)
	}
}
