package vault_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// reservedSuffixes has one suffix of each kind.
var reservedSuffixes = []string{
	".new", ".slots", ".lock", ".write", ".turn", ".anchor", "-wal", "-shm", "-journal",
	".before-v12", ".replaced-20260102T030405Z", ".replaced-20260102T030405Z-2", ".slots.foreign-20260102T030405Z",
	".slots.part-0123456789abcdef", ".part-0123456789abcdef", ".new-journal", ".replaced-20260102T030405Z.slots",
}

func TestReservedNames(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	show := func(context.Context, vault.NewIdentity) error { return nil }
	elsewhere := filepath.Join(vaulttest.Dir(t), "other.db")
	recipient := newIdentity(t).Recipient().String()
	for _, suffix := range reservedSuffixes {
		// Beside a vault, and at a path without one.
		for _, path := range []string{cfg.Path + suffix, elsewhere + suffix} {
			before := exists(path)
			_, create := vault.Create(t.Context(), vault.Config{Path: path}, vault.CreateOptions{ShowRecovery: show})
			_, restore := vault.Restore(t.Context(), vault.Config{Path: path}, vault.RestoreOptions{Replace: true})
			_, recovery := vault.Create(t.Context(), vault.Config{Path: elsewhere}, vault.CreateOptions{RecoveryFile: path})
			_, slot := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecovery, Files: []vault.IdentityFile{{Path: path}}})
			for what, err := range map[string]error{
				"Create": create, "Restore": restore, "RecoveryFile": recovery, "AddSlot": slot,
				"CreateFile": vault.CreateFile(path, nil), "CheckOutput": vault.CheckOutput(path, ""),
			} {
				if !errors.Is(err, vault.ErrInvalid) {
					t.Errorf("%s at %s: %v, want ErrInvalid", what, filepath.Base(path), err)
				}
			}
			if exists(path) != before {
				t.Errorf("%s was made", path)
			}
		}
	}
	for _, path := range []string{"b.db", ".new", "new", "b.news", "b.new.txt", "b.before-v", "b.replaced-yesterday", "b.part-x", "b.part-0123456789abcdeg", "-wal"} {
		if err := vault.CheckOutput(filepath.Join(t.TempDir(), path), cfg.Path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	// Each path is that of the other's file.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(cfg.Path), link); err != nil {
		t.Fatal(err)
	}
	_, recovery := vault.Create(t.Context(), vault.Config{Path: elsewhere}, vault.CreateOptions{RecoveryFile: filepath.Join(filepath.Dir(elsewhere), ".", "other.db")})
	_, slot := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecovery, Files: []vault.IdentityFile{{Path: cfg.Path}}})
	_, twice := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: recipient, Files: []vault.IdentityFile{{Path: link + "/a"}, {Path: link + "/a"}}})
	for what, err := range map[string]error{
		"the recovery file at the database":    recovery,
		"a slot's file at the database":        slot,
		"a slot's files at one path":           twice,
		"the database through a symbolic link": vault.CheckOutput(filepath.Join(link, filepath.Base(cfg.Path)), cfg.Path),
	} {
		if !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
}

// somebodys puts a complete vault of another user at the path where a vault builds its new
// databases.
func somebodys(t *testing.T, path string) []byte {
	t.Helper()
	other := vaulttest.Config(t)
	db := read(t, other.Path)
	write(t, path, db)
	write(t, path+".slots", read(t, other.Path+".slots"))
	return db
}

// TestSomebodysDatabaseStays: a file in the place of a new database is removed because of its
// content, and not because of its name.
func TestSomebodysDatabaseStays(t *testing.T) {
	cfg := vaulttest.Config(t)
	fresh := cfg.Path + ".new"
	db := somebodys(t, fresh)
	write(t, fresh+"-journal", []byte("a backup"))
	check := func(after string) {
		t.Helper()
		if !exists(fresh) || !bytes.Equal(read(t, fresh), db) || string(read(t, fresh+"-journal")) != "a backup" {
			t.Fatalf("it is gone after %s", after)
		}
	}
	v := vaulttest.Open(t, cfg)
	check("an open")
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") }); err != nil {
		t.Error(err)
	}
	check("an update")
	if _, err := v.Rotate(t.Context()); !errors.Is(err, vault.ErrFileExists) {
		t.Errorf("rotate: %v, want ErrFileExists", err)
	}
	check("a rotation")
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-02") }); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	v.Close()
	if ids := keyIDs(t, cfg.Path+".slots"); len(ids) != 1 {
		t.Errorf("entries of %v", ids)
	}
	fill := func(context.Context, *vault.Tx) (vault.Backup, error) {
		return vault.Backup{}, errors.New("not asked for")
	}
	if _, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{Replace: true, Fill: fill}); !errors.Is(err, vault.ErrFileExists) {
		t.Errorf("replace: %v, want ErrFileExists", err)
	}
	check("a restore")
	if done, err := vault.Destroy(t.Context(), cfg); err != nil || !slices.Contains(done.Left, fresh) {
		t.Errorf("destroy left %v, %v", done.Left, err)
	}
	check("a destruction")
	identity := newIdentity(t)
	if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{Recipients: []string{identity.Recipient().String()}}); !errors.Is(err, vault.ErrFileExists) {
		t.Errorf("init: %v, want ErrFileExists", err)
	}
	check("an init")
	// After the file is moved, everything works.
	os.Rename(fresh, fresh+".moved")
	os.Remove(fresh + "-journal")
	if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{Recipients: []string{identity.Recipient().String()}}); err != nil {
		t.Error(err)
	}
}

// TestSomebodysDatabaseAtAnInterruptedInit: the files of the interrupted run are not taken for
// more than they are.
func TestSomebodysDatabaseAtAnInterruptedInit(t *testing.T) {
	s := interruptedInit(t)
	accounts, _ := faulttest.Keyring{Dir: s.keyring()}.Accounts()
	db := somebodys(t, s.db()+".new")
	slots := read(t, s.db()+".slots")
	if err := create(t.Context(), s, &faulttest.Steps{}); !errors.Is(err, vault.ErrMissing) {
		t.Errorf("init: %v, want ErrMissing", err)
	}
	if now, _ := (faulttest.Keyring{Dir: s.keyring()}).Accounts(); !slices.Equal(now, accounts) || len(now) == 0 {
		t.Errorf("keyring items %v, before %v", now, accounts)
	}
	if !bytes.Equal(read(t, s.db()+".new"), db) || !bytes.Equal(read(t, s.db()+".slots"), slots) {
		t.Error("something was changed")
	}
}

// TestInitAfterTheDatabaseWasMoved: an init was killed after its commit, and the database was
// moved away. The key in the keyring belongs to that database.
func TestInitAfterTheDatabaseWasMoved(t *testing.T) {
	counted := &faulttest.Steps{}
	if err := create(t.Context(), newCrashSite(t, true), counted); err != nil {
		t.Fatal(err)
	}
	at := slices.Index(counted.Names(), "link beehives.db") + 1
	for _, fault := range []struct {
		name string
		at   int
	}{{"two names", at}, {"one name", at + 1}} {
		t.Run(fault.name, func(t *testing.T) {
			s := newCrashSite(t, true)
			s.killed(t, "init", "", fault.at, faulttest.KillAfter)
			k := faulttest.Keyring{Dir: s.keyring()}
			before, _ := k.Accounts()
			moved := filepath.Join(s.dir, "out", "moved.db")
			if err := os.Rename(s.db(), moved); err != nil {
				t.Fatal(err)
			}
			if err := create(t.Context(), s, &faulttest.Steps{}); !errors.Is(err, vault.ErrMissing) {
				t.Errorf("init: %v, want ErrMissing", err)
			}
			if after, _ := k.Accounts(); len(before) != 1 || !slices.Equal(before, after) {
				t.Errorf("keyring items %v became %v", before, after)
			}
			if err := os.Rename(moved, s.db()); err != nil {
				t.Fatal(err)
			}
			if got := s.look(t, s.config(&faulttest.Steps{})); got != scenarios["init"].outcome {
				t.Errorf("moved back, there is %s", got)
			}
			s.clean(t)
		})
	}
}

// stuck is a file system on which an init fails at its commit, and cannot remove its slots
// file.
type stuck struct{ durable.OS }

func (stuck) Link(_, path string) error {
	if strings.HasSuffix(path, ".db") {
		return faulttest.ErrFault
	}
	return durable.OS{}.Link(path, path)
}

func (stuck) Remove(path string) error {
	if strings.HasSuffix(path, ".slots") {
		return faulttest.ErrFault
	}
	return durable.OS{}.Remove(path)
}

// TestInitThatCouldNotBeTakenBack: the files that it leaves do not mean that a vault is
// missing.
func TestInitThatCouldNotBeTakenBack(t *testing.T) {
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), FS: stuck{}}
	opts := vault.CreateOptions{Recipients: []string{newIdentity(t).Recipient().String()}}
	if _, err := vault.Create(t.Context(), cfg, opts); !errors.Is(err, faulttest.ErrFault) {
		t.Fatalf("%v, want the fault", err)
	}
	if exists(cfg.Path+".new") || !exists(cfg.Path+".slots") {
		t.Fatal("it was taken back otherwise")
	}
	cfg.FS = nil
	if _, err := vault.Open(t.Context(), cfg); !errors.Is(err, vault.ErrNoVault) {
		t.Errorf("open: %v, want ErrNoVault", err)
	}
	if _, err := vault.Create(t.Context(), cfg, opts); err != nil {
		t.Errorf("the next init: %v", err)
	}
}
