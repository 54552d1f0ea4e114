package vault_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// crashSite is a place for one vault: <dir>/v/beehives.db; <dir>/keyring, if it has one;
// <dir>/out/recovery.txt; and <dir>/identity, which is one of the recipients.
type crashSite struct{ dir string }

func newCrashSite(t *testing.T, withKeyring bool) crashSite {
	t.Helper()
	s := crashSite{vaulttest.Dir(t)}
	dirs := []string{"v", "out"}
	if withKeyring {
		dirs = append(dirs, "keyring")
	}
	for _, dir := range dirs {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(s.dir, "identity"), []byte(newIdentity(t).String()))
	return s
}

func (s crashSite) db() string       { return filepath.Join(s.dir, "v", "beehives.db") }
func (s crashSite) recovery() string { return filepath.Join(s.dir, "out", "recovery.txt") }
func (s crashSite) keyring() string  { return filepath.Join(s.dir, "keyring") }

func (s crashSite) hasKeyring() bool {
	_, err := os.Stat(s.keyring())
	return err == nil
}

func (s crashSite) identity() *age.X25519Identity {
	data, err := os.ReadFile(filepath.Join(s.dir, "identity"))
	if err != nil {
		panic(err)
	}
	identity, err := age.ParseX25519Identity(string(data))
	if err != nil {
		panic(err)
	}
	return identity
}

// method is an unlock method of the vault at a site.
type method string

const (
	byKeyring   method = "keyring"
	byRecovery  method = "recovery"
	byRecipient method = "recipient"
)

// usual is the unlock method to use if nothing was lost.
func (s crashSite) usual() method {
	slots, err := os.ReadFile(s.db() + ".slots")
	if s.hasKeyring() && (err != nil || strings.Contains(string(slots), `"keyring": true`)) {
		return byKeyring
	}
	return byRecipient
}

func (s crashSite) config(st *faulttest.Steps) vault.Config { return s.configBy(s.usual(), st) }

func (s crashSite) configBy(w method, st *faulttest.Steps) vault.Config {
	cfg := vault.Config{Path: s.db(), FS: faulttest.FS{Steps: st}, Actor: "ops", Via: "test"}
	if s.hasKeyring() {
		cfg.Keyring = faulttest.Keyring{Dir: s.keyring(), Steps: st}
	}
	switch w {
	case byRecovery:
		cfg.Identities = identitiesIn(s.recovery())
	case byRecipient:
		cfg.Identities = []age.Identity{s.identity()}
		cfg.ConfirmSigner = vaulttest.AcceptSigner
	}
	return cfg
}

func identitiesIn(file string) []age.Identity {
	f, err := os.Open(file)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	identities, err := identity.Parse(context.Background(), f, identity.Options{})
	if err != nil {
		panic(err)
	}
	return identities
}

var allMethods = []method{byKeyring, byRecovery, byRecipient}

// copy makes an identical site.
func (s crashSite) copy(t *testing.T) crashSite {
	t.Helper()
	other := crashSite{vaulttest.Dir(t)}
	if err := os.Remove(other.dir); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", s.dir, other.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return other
}

// noVault is what look prints if there is no vault.
const noVault = "no vault"

// look opens the vault without faults, checks everything and prints it, or prints "no vault".
func (s crashSite) look(t *testing.T, cfg vault.Config) string {
	t.Helper()
	v, err := vault.Open(t.Context(), cfg)
	if errors.Is(err, vault.ErrNoVault) {
		return noVault
	}
	if err != nil {
		t.Fatalf("open: %v\n%s", err, s.listing())
	}
	defer v.Close()
	nodes := []string{}
	rest := ""
	err = v.View(t.Context(), func(tx *vault.Tx) error {
		if _, err := tx.VerifyAudit(t.Context()); err != nil {
			return err
		}
		if _, err := tx.Signer(t.Context()); err != nil { // it is a sealed column
			return err
		}
		m, err := tx.Meta(t.Context())
		if err != nil {
			return err
		}
		slots, err := tx.Slots(t.Context())
		if err != nil {
			return err
		}
		rest = fmt.Sprintf(" generation %d, %d slots", m.Generation, len(slots))
		if m.Keyring {
			rest += ", keyring"
		}
		keys, err := checkKeys(t.Context(), tx)
		if err != nil {
			return err
		}
		rows, err := tx.QueryContext(t.Context(), `SELECT node_name FROM beehives ORDER BY node_name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			nodes = append(nodes, name)
			if name == "old" || name == "restored" {
				keys--
			}
		}
		if keys != 0 {
			return fmt.Errorf("sealed keys are missing")
		}
		return rows.Err()
	})
	if err == nil {
		err = v.CheckPages(t.Context())
	}
	if err == nil { // the vault can be written
		err = v.Update(t.Context(), func(tx *vault.Tx) error { return nil })
	}
	if err != nil {
		t.Fatalf("look: %v", err)
	}
	return fmt.Sprint(nodes) + rest
}

func (s crashSite) listing() string {
	var b strings.Builder
	filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		fmt.Fprintln(&b, path)
		return nil
	})
	data, _ := os.ReadFile(s.db() + ".slots")
	return b.String() + string(data)
}

// clean checks that nothing is left over: there is one entry, there are no files of a run, and
// there is one keyring item for each database.
func (s crashSite) clean(t *testing.T) {
	t.Helper()
	keys := map[string]bool{}
	for _, dir := range []string{filepath.Dir(s.db()), filepath.Dir(s.recovery())} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := e.Name()
			if strings.Contains(name, ".part-") || strings.Contains(name, ".new") || strings.Contains(name, "-wal") || strings.Contains(name, "-journal") || strings.Contains(name, ".foreign-") {
				t.Errorf("%s is left over", name)
			}
			if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
			}
			if name == "beehives.db" || strings.Contains(name, ".replaced-") && !strings.Contains(name, ".slots") {
				keys[fmt.Sprintf("%x", read(t, filepath.Join(dir, name))[:16])] = true
			}
		}
	}
	if s.hasKeyring() {
		accounts, err := faulttest.Keyring{Dir: s.keyring()}.Accounts()
		if err != nil {
			t.Fatal(err)
		}
		for _, account := range accounts {
			if strings.HasSuffix(account, "/anchor") {
				continue
			}
			if !keys[account] {
				t.Errorf("keyring item %s belongs to no database", account)
			}
			delete(keys, account)
		}
		for key := range keys {
			if s.usual() == byKeyring {
				t.Errorf("database %s has no keyring item", key)
			}
		}
	}
	if n := strings.Count(string(read(t, s.db()+".slots")), `"key_id"`); n != 1 {
		t.Errorf("%d entries in the slots file", n)
	}
}

// opensBy checks that an identity file opens the vault.
func (s crashSite) opensBy(t *testing.T, file string, cfg vault.Config) {
	t.Helper()
	cfg.Identities, cfg.ConfirmSigner = identitiesIn(file), vaulttest.AcceptSigner
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Fatalf("%s does not open the vault: %v", filepath.Base(file), err)
	}
}
