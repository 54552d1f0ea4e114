package vault_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// otherKeyID belongs to no database.
const otherKeyID = "0123456789abcdef0123456789abcdef"

// otherDatabase begins with it.
func otherDatabase() []byte {
	page := make([]byte, 4096)
	copy(page, "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef")
	return page
}

// addEntry adds a second entry to a slots file: a copy of the first with another key id, and
// with the fields in change.
func addEntry(t *testing.T, path string, change map[string]any) {
	t.Helper()
	var file struct {
		Format  string           `json:"format"`
		Entries []map[string]any `json:"entries"`
	}
	data := read(t, path)
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	added := map[string]any{}
	for k, v := range file.Entries[0] {
		added[k] = v
	}
	added["key_id"] = otherKeyID
	for k, v := range change {
		added[k] = v
	}
	file.Entries = append(file.Entries, added)
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, data)
}

func keyIDs(t *testing.T, path string) []string {
	t.Helper()
	var file struct {
		Entries []struct {
			KeyID string `json:"key_id"`
		}
	}
	if err := json.Unmarshal(read(t, path), &file); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range file.Entries {
		ids = append(ids, e.KeyID)
	}
	return ids
}

// leftVault makes a vault with what an interrupted transition leaves: an entry for another key,
// a keyring item for it, a database that was being built, and a copy that a migration set
// aside.
func leftVault(t *testing.T, change map[string]any) (vault.Config, faulttest.Keyring, *age.X25519Identity) {
	t.Helper()
	cfg, k, identity := keyringVault(t)
	cfg.Now = func() time.Time { return time.UnixMilli(1767323045123) }
	addEntry(t, cfg.Path+".slots", change)
	if err := k.Set(t.Context(), otherKeyID, "an item"); err != nil {
		t.Fatal(err)
	}
	write(t, cfg.Path+".new", nil)
	write(t, cfg.Path+".new-journal", nil)
	write(t, cfg.Path+".slots.part-0123456789abcdef", nil)
	write(t, cfg.Path+".before-v1", otherDatabase())
	return cfg, k, identity
}

func hasItem(t *testing.T, k faulttest.Keyring) bool {
	t.Helper()
	accounts, err := k.Accounts()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(accounts, otherKeyID)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func foreignCopies(t *testing.T, cfg vault.Config) []string {
	t.Helper()
	found, err := filepath.Glob(cfg.Path + ".slots.foreign-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

const anotherVault = "6b1f8c1e-3b5b-4b8e-9f0a-0d6a5d2c7e11"

// TestSettle tries every kind of second entry beside the entry of the database in place.
func TestSettle(t *testing.T) {
	pending := map[string]any{"state": "pending"}
	for _, test := range []struct {
		name    string
		entry   map[string]any
		spoil   func(t *testing.T, cfg vault.Config)
		item    bool // it is still there afterwards
		before  bool // the copy of a migration is still there
		foreign bool // the file is copied aside
	}{
		{"pending", pending, nil, false, true, false},
		{"pending, of another vault", map[string]any{"state": "pending", "vault_id": anotherVault, "generation": 9}, nil, false, true, false},
		{"pending, without a keyring", map[string]any{"state": "pending", "keyring": false}, nil, true, true, false},
		{"replaced", map[string]any{"state": "replaced"}, nil, true, true, false},
		{"rotated away", map[string]any{"generation": 0}, nil, false, false, false},
		{"rotated away, but a file set aside needs it", map[string]any{"generation": 0}, func(t *testing.T, cfg vault.Config) {
			write(t, cfg.Path+".replaced-20260101T000000Z", otherDatabase())
		}, true, false, false},
		{"rotated away, beside a file set aside that cannot be read", map[string]any{"generation": 0}, func(t *testing.T, cfg vault.Config) {
			write(t, cfg.Path+".replaced-20260101T000000Z", []byte("short"))
		}, true, false, false},
		{"what was built is zeros", map[string]any{"state": "pending"}, func(t *testing.T, cfg vault.Config) {
			write(t, cfg.Path+".new", make([]byte, 8192))
		}, false, true, false},
		{"current, of another vault", map[string]any{"vault_id": anotherVault}, nil, true, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			good, _, _ := keyringVault(t) // only to know the size of a file at rest
			cfg, k, _ := leftVault(t, test.entry)
			if test.spoil != nil {
				test.spoil(t, cfg)
			}
			left := read(t, cfg.Path+".slots")
			v := vaulttest.Open(t, cfg)
			if err := v.Update(t.Context(), func(tx *vault.Tx) error { return nil }); err != nil {
				t.Error(err)
			}
			v.Close()
			if ids := keyIDs(t, cfg.Path+".slots"); len(ids) != 1 || ids[0] == otherKeyID {
				t.Errorf("entries of %v", ids)
			}
			if got, want := len(read(t, cfg.Path+".slots")), len(read(t, good.Path+".slots")); got != want {
				t.Errorf("slots file of %d bytes, want %d", got, want)
			}
			for _, suffix := range []string{".new", ".new-journal", ".slots.part-0123456789abcdef"} {
				if exists(cfg.Path + suffix) {
					t.Errorf("%s is left", suffix)
				}
			}
			if got := hasItem(t, k); got != test.item {
				t.Errorf("keyring item there: %t", got)
			}
			if got := exists(cfg.Path + ".before-v1"); got != test.before {
				t.Errorf("copy of a migration there: %t", got)
			}
			copies := foreignCopies(t, cfg)
			if (len(copies) == 1) != test.foreign {
				t.Errorf("set aside: %v", copies)
			}
			for _, path := range copies {
				if !bytes.Equal(read(t, path), left) {
					t.Error("the copy is not what was there")
				}
			}
		})
	}
}

// TestSettleLeavesAnothersItem: a pending entry names the key of another vault. The keyring's
// item holds another key than the entry names, and it stays.
func TestSettleLeavesAnothersItem(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	other := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Keyring: k}
	if _, err := vault.Create(t.Context(), other, vault.CreateOptions{Recipients: []string{otherRecipient}}); err != nil {
		t.Fatal(err)
	}
	addEntry(t, cfg.Path+".slots", map[string]any{"state": "pending", "key_id": keyIDs(t, other.Path+".slots")[0]})
	if err := vaulttest.Open(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	if err := vaulttest.Open(t, other).Close(); err != nil {
		t.Errorf("the other vault: %v", err)
	}
}

// TestSettleNotReplaced: an entry says that this very vault was replaced. It still opens by the
// keyring.
func TestSettleNotReplaced(t *testing.T) {
	cfg, _, _ := leftVault(t, map[string]any{"state": "replaced"})
	for range 2 {
		if err := vaulttest.Open(t, cfg).Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSettleWaitsForTheKeyring: an open by another method does not wait for a keyring. It
// leaves the entry for an open that uses the keyring.
func TestSettleWaitsForTheKeyring(t *testing.T) {
	cfg, k, identity := leftVault(t, map[string]any{"state": "pending"})
	byIdentity := cfg
	byIdentity.Identities, byIdentity.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
	byIdentity.Keyring = forbidden{t}
	for range 2 {
		vaulttest.Open(t, byIdentity).Close()
		if ids := keyIDs(t, cfg.Path+".slots"); len(ids) != 2 || ids[1] != otherKeyID || !hasItem(t, k) {
			t.Errorf("entries of %v", ids)
		}
	}
	failing := cfg
	failing.Keyring = faulttest.Keyring{Dir: k.Dir, Steps: &faulttest.Steps{At: 3, Fault: faulttest.FailOnwards}}
	v := vaulttest.Open(t, failing)
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return nil }); err != nil {
		t.Errorf("a sweep that fails must only warn: %v", err)
	}
	v.Close()
	if ids := keyIDs(t, cfg.Path+".slots"); len(ids) != 2 || !hasItem(t, k) {
		t.Errorf("entries of %v", ids)
	}
	vaulttest.Open(t, cfg).Close()
	if ids := keyIDs(t, cfg.Path+".slots"); len(ids) != 1 || hasItem(t, k) {
		t.Errorf("entries of %v, item there: %t", ids, hasItem(t, k))
	}
}

// TestSettleWithoutKeyring: a vault without a keyring drops such entries at once.
func TestSettleWithoutKeyring(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Keyring = forbidden{t}
	addEntry(t, cfg.Path+".slots", map[string]any{"state": "pending", "keyring": true})
	vaulttest.Open(t, cfg).Close()
	if ids := keyIDs(t, cfg.Path+".slots"); len(ids) != 1 {
		t.Errorf("entries of %v", ids)
	}
}

// TestSettleRefusesAnOlderDatabase: nothing is written before everything is judged.
func TestSettleRefusesAnOlderDatabase(t *testing.T) {
	for name, entry := range map[string]map[string]any{
		"the same generation": {"generation": 1},
		"a later one":         {"generation": 2},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, k, _ := leftVault(t, entry)
			left := read(t, cfg.Path+".slots")
			if _, err := vault.Open(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) {
				t.Fatalf("%v, want ErrRollback", err)
			}
			if !bytes.Equal(read(t, cfg.Path+".slots"), left) || !hasItem(t, k) || !exists(cfg.Path+".new") {
				t.Error("a refused open changed something")
			}
			accepting := cfg
			accepting.AcceptRollback = true
			v := vaulttest.Open(t, accepting)
			if got := actions(t, v); got[len(got)-1] != "vault.accept-rollback" {
				t.Errorf("audited: %v", got)
			}
			v.Close()
			vaulttest.Open(t, cfg).Close()
			if len(foreignCopies(t, cfg)) != 1 || !hasItem(t, k) {
				t.Errorf("copies %v, item there: %t", foreignCopies(t, cfg), hasItem(t, k))
			}
		})
	}
}

// actions returns the actions in the audit log.
func actions(t *testing.T, v *vault.Vault) []string {
	t.Helper()
	var found []string
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		for r, err := range tx.AuditRows(t.Context(), 1) {
			if err != nil {
				return err
			}
			found = append(found, r.Action)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSettleSecondCopyInASecond: times in file names are whole seconds. A second copy in the
// same second must not make the vault read only.
func TestSettleSecondCopyInASecond(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	cfg.Now = func() time.Time { return time.UnixMilli(1767323045123) }
	for n := range 3 {
		write(t, cfg.Path+".slots", []byte(strings.Repeat("x", n)))
		v := vaulttest.Open(t, cfg)
		if err := v.Update(t.Context(), func(tx *vault.Tx) error { return nil }); err != nil {
			t.Error(err)
		}
		v.Close()
		if copies := foreignCopies(t, cfg); len(copies) != n+1 {
			t.Errorf("copies %v, want %d", copies, n+1)
		}
	}
}

// TestAcceptRollbackWithoutOne: if there was no rollback, none is in the log.
func TestAcceptRollbackWithoutOne(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	cfg.AcceptRollback = true
	write(t, cfg.Path+".slots", []byte("garbage"))
	v := vaulttest.Open(t, cfg)
	if got := actions(t, v); slices.Contains(got, "vault.accept-rollback") {
		t.Errorf("audited: %v", got)
	}
}

// TestUnsettled: while the slots file cannot be written, the vault can be read but not changed.
func TestUnsettled(t *testing.T) {
	cfg, k, _ := leftVault(t, map[string]any{"state": "pending"})
	left := read(t, cfg.Path+".slots")
	full := cfg
	full.FS = faulttest.FS{Steps: &faulttest.Steps{At: 1, Fault: faulttest.FailOnwards}}
	v := vaulttest.Open(t, full)
	if err := v.View(t.Context(), func(tx *vault.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { t.Error("fn was called"); return nil }); !errors.Is(err, vault.ErrUnsettled) {
		t.Errorf("%v, want ErrUnsettled", err)
	}
	v.Close()
	if !bytes.Equal(read(t, cfg.Path+".slots"), left) || !hasItem(t, k) {
		t.Error("something was swept all the same")
	}
	v = vaulttest.Open(t, cfg)
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return nil }); err != nil || hasItem(t, k) {
		t.Errorf("%v, item there: %t", err, hasItem(t, k))
	}
}

// TestSettleUnderFaults makes each step of settling fail. The vault opens. After the next open
// only the current entry is left. The keyring item is deleted before the entry that names it.
func TestSettleUnderFaults(t *testing.T) {
	for name, entry := range map[string]map[string]any{
		"pending":         {"state": "pending"},
		"rotated away":    {"generation": 0},
		"another vault's": {"vault_id": anotherVault},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faulty := func(cfg vault.Config, k faulttest.Keyring, steps *faulttest.Steps) vault.Config {
				cfg.FS, cfg.Keyring = faulttest.FS{Steps: steps}, faulttest.Keyring{Dir: k.Dir, Steps: steps}
				return cfg
			}
			counted := &faulttest.Steps{}
			cfg, k, _ := leftVault(t, entry)
			vaulttest.Open(t, faulty(cfg, k, counted)).Close()
			for at := 3; at <= len(counted.Names()); at++ { // the first two read the key and the anchor
				for _, b := range []faulttest.Fault{faulttest.FailBefore, faulttest.FailAfter, faulttest.FailOnwards} {
					cfg, k, _ := leftVault(t, entry)
					steps := &faulttest.Steps{At: at, Fault: b}
					v, err := vault.Open(t.Context(), faulty(cfg, k, steps))
					if err != nil {
						t.Errorf("step %d, %s: %v", at, b, err)
						continue
					}
					if err := v.Close(); err != nil {
						t.Error(err)
					}
					if name != "another vault's" && hasItem(t, k) && !slices.Contains(keyIDs(t, cfg.Path+".slots"), otherKeyID) {
						t.Errorf("step %d, %s: nothing names the keyring item", at, b)
					}
					v = vaulttest.Open(t, cfg)
					if err := v.Update(t.Context(), func(tx *vault.Tx) error { return nil }); err != nil {
						t.Errorf("step %d, %s: %v", at, b, err)
					}
					v.Close()
					if ids := keyIDs(t, cfg.Path+".slots"); len(ids) != 1 {
						t.Errorf("step %d, %s: entries of %v", at, b, ids)
					}
					if name != "another vault's" && hasItem(t, k) {
						t.Errorf("step %d, %s: the item is left", at, b)
					}
					left, _ := filepath.Glob(cfg.Path + "*.part-*")
					if len(left) > 0 || exists(cfg.Path+".new") {
						t.Errorf("step %d, %s: left %v", at, b, left)
					}
				}
			}
			t.Logf("%d steps", len(counted.Names())-2)
		})
	}
}

// TestSettleFlushesBeforeItDeletes: a rotation was killed after its commit, and the next open
// was killed after it renamed the slots file. Neither name is durable yet. So the directory is
// flushed before the old key is deleted, even though the slots file is correct.
func TestSettleFlushesBeforeItDeletes(t *testing.T) {
	sc := scenarios["rotate"]
	ground := sc.prepare(t)
	counted := &faulttest.Steps{}
	if err := sc.run(t.Context(), ground.copy(t), counted); err != nil {
		t.Fatal(err)
	}
	names := counted.Names()
	commit := slices.Index(names, "rename beehives.db")
	at := commit + 1 + slices.Index(names[commit:], "rename beehives.db.slots")
	s := ground.copy(t)
	s.killed(t, "rotate", "", at, faulttest.KillAfter)
	steps := &faulttest.Steps{}
	v := vaulttest.Open(t, s.configBy(byKeyring, steps))
	v.Close()
	flush, deleted := slices.Index(steps.Names(), "sync directory"), slices.Index(steps.Names(), "keyring delete")
	if deleted < 0 || flush < 0 || flush > deleted || slices.Index(steps.Names(), "rename beehives.db.slots") < deleted {
		t.Errorf("steps: %v", steps.Names())
	}
	s.clean(t)
}
