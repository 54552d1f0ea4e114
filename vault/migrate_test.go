package vault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// nextSchema configures a program that knows one more migration than this one.
func nextSchema(cfg vault.Config) vault.Config { return withSecond(cfg, secondMigration) }

const secondMigration = `-- +goose Up
CREATE TABLE labels (
    node_name TEXT NOT NULL REFERENCES beehives (node_name),
    label TEXT NOT NULL
);
INSERT INTO labels SELECT node_name, 'moved' FROM beehives;
`

func withSecond(cfg vault.Config, second string) vault.Config {
	first, err := os.ReadFile("migrations/00001_init.sql")
	if err != nil {
		panic(err)
	}
	return cfg.WithMigrations(fstest.MapFS{
		"00001_init.sql":   {Data: first},
		"00002_second.sql": {Data: []byte(second)},
	})
}

// vaultWithNode makes a vault without a keyring, with the node "old".
func vaultWithNode(t *testing.T) vault.Config {
	t.Helper()
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "old") })
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// one reads one value.
func one[T any](t *testing.T, v *vault.Vault, query string, args ...any) (value T) {
	t.Helper()
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		return tx.QueryRowContext(t.Context(), query, args...).Scan(&value)
	})
	if err != nil {
		t.Errorf("%s: %v", query, err)
	}
	return value
}

func audit(t *testing.T, v *vault.Vault) (actions []string) {
	t.Helper()
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		if _, err := tx.VerifyAudit(t.Context()); err != nil {
			return err
		}
		for r, err := range tx.AuditRows(t.Context(), 1) {
			if err != nil {
				return err
			}
			actions = append(actions, strings.TrimSpace(r.Action+" "+r.Detail))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return actions
}

func TestMigrate(t *testing.T) {
	cfg := vaultWithNode(t)
	before, slots := read(t, cfg.Path), read(t, cfg.Path+".slots")
	v := vaulttest.Open(t, nextSchema(cfg))
	if n := one[int](t, v, `PRAGMA user_version`); n != 2 {
		t.Errorf("schema %d, want 2", n)
	}
	if label := one[string](t, v, `SELECT label FROM labels WHERE node_name = 'old'`); label != "moved" {
		t.Errorf("label %q", label)
	}
	actions := audit(t, v)
	if diff := cmp.Diff([]string{"vault.init 1 slots, keyring false", "node.add", "vault.migrate schema 2"}, actions); diff != "" {
		t.Error(diff)
	}
	if err := errors.Join(v.CheckPages(t.Context()), v.Close()); err != nil {
		t.Error(err)
	}

	// The copy that was set aside is the vault as it was. It opens for reading.
	aside := cfg
	aside.Path += ".before-v1"
	if string(read(t, aside.Path)) != string(before) || string(read(t, aside.Path+".slots")) != string(slots) {
		t.Error("the copy set aside is not what was there")
	}
	old := vaulttest.Open(t, aside)
	if name := one[string](t, old, `SELECT node_name FROM beehives`); name != "old" {
		t.Errorf("set aside: node %q", name)
	}
	if err := old.Update(t.Context(), func(*vault.Tx) error { return nil }); !errors.Is(err, vault.ErrReadOnly) {
		t.Errorf("write to a file set aside: %v, want ErrReadOnly", err)
	}
	if err := errors.Join(old.CheckPages(t.Context()), old.Close()); err != nil {
		t.Error(err)
	}
	if string(read(t, aside.Path)) != string(before) {
		t.Error("reading the file set aside changed it")
	}
	if _, err := vault.Open(t.Context(), nextSchema(aside)); !errors.Is(err, vault.ErrReadOnly) {
		t.Errorf("a file set aside that would need migration: %v, want ErrReadOnly", err)
	}

	// The older program refuses, and changes nothing.
	migrated := read(t, cfg.Path)
	if _, err := vault.Open(t.Context(), cfg); !errors.Is(err, vault.ErrNewer) {
		t.Errorf("the older program: %v, want ErrNewer", err)
	}
	if string(read(t, cfg.Path)) != string(migrated) {
		t.Error("the older program changed the vault")
	}
}

// TestMigrateFails: a failed migration leaves the version before it complete, and the next
// attempt starts again.
func TestMigrateFails(t *testing.T) {
	for name, second := range map[string]string{
		"at its end":        secondMigration + "INSERT INTO nowhere VALUES (1);\n",
		"at once":           "-- +goose Up\nnonsense;\n",
		"cannot be parsed":  "CREATE TABLE x (y);\n",
		"leaves references": "-- +goose Up\nPRAGMA defer_foreign_keys = ON;\nINSERT INTO host_keys VALUES ('nobody', 't', 'k', 1, 1);\n",
	} {
		t.Run(name, func(t *testing.T) {
			cfg := vaultWithNode(t)
			for range 2 {
				if v, err := vault.Open(t.Context(), withSecond(cfg, second)); err == nil {
					v.Close()
					t.Fatal("opened")
				}
				v := vaulttest.Open(t, cfg)
				if n := one[int](t, v, `PRAGMA user_version`); n != 1 {
					t.Errorf("schema %d, want 1", n)
				}
				if n := one[int](t, v, `SELECT count(*) FROM sqlite_master WHERE name = 'labels'`); n != 0 {
					t.Error("a table of the failed migration is there")
				}
				if name := one[string](t, v, `SELECT node_name FROM beehives`); name != "old" {
					t.Errorf("node %q", name)
				}
				if diff := cmp.Diff([]string{"vault.init 1 slots, keyring false", "node.add"}, audit(t, v)); diff != "" {
					t.Error(diff)
				}
				if err := errors.Join(v.CheckPages(t.Context()), v.Close()); err != nil {
					t.Error(err)
				}
			}
			vaulttest.Open(t, nextSchema(cfg))
		})
	}
}

// TestMigrateWaits: while another process has the vault open, the schema does not change.
func TestMigrateWaits(t *testing.T) {
	cfg := vaultWithNode(t)
	cmd := child("hold", childSpec(cfg))
	if lines := start(t, cmd); !lines.Scan() {
		t.Fatal("the child does not open the vault")
	}
	cfg.Wait = 50 * time.Millisecond
	_, err := vault.Open(t.Context(), nextSchema(cfg))
	if !errors.Is(err, vault.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("%v, want ErrLocked that names pid %d", err, cmd.Process.Pid)
	}
	if aside, _ := filepath.Glob(cfg.Path + ".before-*"); len(aside) != 0 {
		t.Errorf("set aside: %v", aside)
	}
	vaulttest.Open(t, cfg).Close()
	cmd.Process.Kill()
	cmd.Wait()
	vaulttest.Open(t, nextSchema(cfg))
}

// TestMigrateNoOlderCopy: an older copy of the database is refused before anything is done to
// it, even if it needs a migration.
func TestMigrateNoOlderCopy(t *testing.T) {
	cfg := vaultWithNode(t)
	file := strings.Replace(string(read(t, cfg.Path+".slots")), `"slots_seq": 0`, `"slots_seq": 1`, 1)
	write(t, cfg.Path+".slots", []byte(file))
	before := read(t, cfg.Path)
	if _, err := vault.Open(t.Context(), nextSchema(cfg)); !errors.Is(err, vault.ErrRollback) {
		t.Errorf("%v, want ErrRollback", err)
	}
	if string(read(t, cfg.Path)) != string(before) {
		t.Error("the refused database was changed")
	}
	if aside, _ := filepath.Glob(cfg.Path + ".before-*"); len(aside) != 0 {
		t.Errorf("set aside: %v", aside)
	}
	cfg.AcceptRollback = true
	vaulttest.Open(t, nextSchema(cfg))
}

// watching is an identity that checks, when it is asked, whether others are locked out of the
// vault.
type watching struct {
	age.Identity
	t    *testing.T
	lock string
}

func (w watching) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	lock := durable.NewLock(w.lock)
	if err := lock.Shared(ctx); err != nil {
		w.t.Errorf("asked under the exclusive lock: %v", err)
	} else {
		lock.Unlock()
	}
	return w.Identity.Unwrap(stanzas)
}

// TestMigrateAsksNobodyUnderTheLock: a person or a token that takes long does not lock others
// out.
func TestMigrateAsksNobodyUnderTheLock(t *testing.T) {
	cfg := vaultWithNode(t)
	cfg.Identities, cfg.ConfirmSigner = []age.Identity{watching{cfg.Identities[0], t, cfg.Path + ".lock"}}, vaulttest.AcceptSigner
	if err := openAndClose(t.Context(), nextSchema(cfg)); err != nil {
		t.Fatal(err)
	}
	_, err := vault.Restore(t.Context(), nextSchema(cfg), vault.RestoreOptions{
		Replace:         true,
		ConfirmUnproven: func(context.Context, vault.UnprovenVault) error { return nil },
		Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
			return vault.Backup{}, errors.New("not wanted")
		},
	})
	if err == nil || !strings.Contains(err.Error(), "not wanted") {
		t.Errorf("replace: %v", err)
	}
}
