package vault_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// The crash matrix: each call to the file system or the keyring that a
// transition makes is one point, and at each point the call fails before its
// effect, fails after it, all fail from there on, or the process is killed before
// or after it. Whatever happens, the old vault or the new one must stand whole,
// and a rerun succeed.

// crashSite is a place for one vault: <dir>/v/beehives.db; <dir>/keyring, where
// it has one; <dir>/out/recovery.txt; and <dir>/identity, which is a recipient of
// what is made.
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

func (s crashSite) config(st *faulttest.Steps) vault.Config {
	cfg := vault.Config{Path: s.db(), FS: faulttest.FS{Steps: st}, Actor: "ops", Via: "test"}
	if s.hasKeyring() {
		cfg.Keyring = faulttest.Keyring{Dir: s.keyring(), Steps: st}
	} else {
		cfg.Identities = []age.Identity{s.identity()}
	}
	return cfg
}

// scenario is what a run does at a site.
type scenario struct {
	keyring bool
	old     bool // there is a vault before, with the node "old"
	run     func(ctx context.Context, s crashSite, st *faulttest.Steps) error
	nodes   string // afterwards
	// later is the configuration in which the outcome is opened, from config's.
	later func(vault.Config) vault.Config
}

func (sc scenario) config(s crashSite, st *faulttest.Steps) vault.Config {
	cfg := s.config(st)
	if sc.later != nil {
		cfg = sc.later(cfg)
	}
	return cfg
}

var scenarios = map[string]scenario{
	"init":                    {keyring: true, run: create, nodes: "[]"},
	"init without keyring":    {run: create, nodes: "[]"},
	"restore":                 {keyring: true, run: restoring(false), nodes: "[restored]"},
	"replace":                 {keyring: true, old: true, run: restoring(true), nodes: "[restored]"},
	"replace without keyring": {old: true, run: restoring(true), nodes: "[restored]"},
	"migrate":                 {keyring: true, old: true, run: migrate, nodes: "[old]", later: nextSchema},
}

func create(ctx context.Context, s crashSite, st *faulttest.Steps) error {
	_, err := vault.Create(ctx, s.config(st), vault.CreateOptions{RecoveryFile: s.recovery(), Recipients: []string{s.identity().Recipient().String()}})
	return err
}

func migrate(ctx context.Context, s crashSite, st *faulttest.Steps) error {
	return openAndClose(ctx, nextSchema(s.config(st)))
}

func openAndClose(ctx context.Context, cfg vault.Config) error {
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return err
	}
	return v.Close()
}

func restoring(replace bool) func(context.Context, crashSite, *faulttest.Steps) error {
	return func(ctx context.Context, s crashSite, st *faulttest.Steps) error {
		_, err := vault.Restore(ctx, s.config(st), vault.RestoreOptions{
			Replace: replace,
			Fill: func(ctx context.Context, tx *vault.Tx) (vault.Restored, error) {
				slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: s.identity().Recipient().String(), Created: tx.Now()}
				return vault.Restored{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, insertNode(ctx, tx, "restored")
			},
		})
		return err
	}
}

func insertNode(ctx context.Context, tx *vault.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO beehives (node_name, ssh_host, ssh_user, git_repo_url, git_branch, install_path) VALUES (?, 'h', 'ops', 'https://example.org/r.git', 'main', '/opt')`, name)
	return err
}

// copy makes another site that is the same.
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

// prepare makes a site and lays the ground: a vault with a row, for those that
// replace or migrate it.
func (sc scenario) prepare(t *testing.T) crashSite {
	t.Helper()
	s := newCrashSite(t, sc.keyring)
	if !sc.old {
		return s
	}
	if err := create(t.Context(), s, &faulttest.Steps{}); err != nil {
		t.Fatal(err)
	}
	v := vaulttest.Open(t, s.config(&faulttest.Steps{}))
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return insertNode(t.Context(), tx, "old") }); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// killed runs a scenario, or just opens the vault, in a child that is killed at
// a step, if it comes so far.
func (s crashSite) killed(t *testing.T, scenario string, open bool, at int, b faulttest.Blow) {
	t.Helper()
	cmd := child("crash", strings.Join([]string{scenario, s.dir, strconv.FormatBool(open), strconv.Itoa(at), string(b)}, "|"))
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v\n%s", err, out)
	}
}

func crashChild(spec string) {
	f := strings.Split(spec, "|")
	sc, s := scenarios[f[0]], crashSite{f[1]}
	at, _ := strconv.Atoi(f[3])
	st := &faulttest.Steps{At: at, Blow: faulttest.Blow(f[4])}
	var err error
	if f[2] == "true" {
		err = openAndClose(context.Background(), sc.config(s, st))
	} else {
		err = sc.run(context.Background(), s, st)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// look opens the vault without faults, checks all of it and returns its nodes, or
// "no vault".
func (s crashSite) look(t *testing.T, cfg vault.Config) string {
	t.Helper()
	v, err := vault.Open(t.Context(), cfg)
	if errors.Is(err, vault.ErrNoVault) {
		return err.Error()[:len("no vault")]
	}
	if err != nil {
		t.Fatalf("open: %v\n%s", err, s.listing())
	}
	defer v.Close()
	nodes := []string{}
	err = v.View(t.Context(), func(tx *vault.Tx) error {
		if _, err := tx.VerifyAudit(t.Context()); err != nil {
			return err
		}
		if _, err := tx.Signer(t.Context()); err != nil { // a sealed column opens
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
		}
		return rows.Err()
	})
	if err == nil {
		err = v.CheckPages(t.Context())
	}
	if err == nil { // and it can be written to
		err = v.Update(t.Context(), func(tx *vault.Tx) error { return nil })
	}
	if err != nil {
		t.Fatalf("look: %v", err)
	}
	return fmt.Sprint(nodes)
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

// clean checks that nothing is left over: one entry, no files of a run, and a
// keyring item for each database and no other.
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
			if !keys[account] {
				t.Errorf("keyring item %s belongs to no database", account)
			}
			delete(keys, account)
		}
		for key := range keys {
			t.Errorf("database %s has no keyring item", key)
		}
	}
	if n := strings.Count(string(read(t, s.db()+".slots")), `"key_id"`); n != 1 {
		t.Errorf("%d entries in the slots file", n)
	}
}

// opensBy checks that an identity file opens the vault.
func (s crashSite) opensBy(t *testing.T, file string, cfg vault.Config) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if cfg.Identities, err = vault.ParseIdentities(f); err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Fatalf("%s does not open the vault: %v", filepath.Base(file), err)
	}
}

func TestCrashMatrix(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			counted := &faulttest.Steps{}
			ground := sc.prepare(t)
			none := ground.look(t, ground.config(&faulttest.Steps{}))
			s := ground.copy(t)
			if err := sc.run(ctx, s, counted); err != nil {
				t.Fatal(err)
			}
			s.clean(t)
			steps := counted.Names()
			tally := map[string]int{}
			for at := 1; at <= len(steps); at++ {
				step := steps[at-1]
				for _, b := range faulttest.Blows {
					if b == faulttest.KillBefore && at%2 == 1 && at > 1 {
						continue // the kill after the step before left the same
					}
					tally["blows"]++
					s := ground.copy(t)
					var got string
					if b.Kills() {
						s.killed(t, name, false, at, b)
						if b == faulttest.KillBefore || at%4 == 0 {
							// And again, somewhere in what comes after: in settling, or
							// in the next run.
							s.killed(t, name, at%4 == 2, 1+at*7%(len(steps)+1), b)
							tally["struck twice"]++
						}
						got = s.look(t, sc.config(s, &faulttest.Steps{}))
					} else {
						st := &faulttest.Steps{At: at, Blow: b}
						err := sc.run(ctx, s, st)
						// What is returned is the truth: an error, and nothing has
						// changed; none, and all has.
						cfg, want := sc.config(s, &faulttest.Steps{}), sc.nodes
						if err != nil {
							cfg, want = s.config(&faulttest.Steps{}), none
						}
						if sc.later != nil { // a migration that was done stays done
							cfg = sc.config(s, &faulttest.Steps{})
						}
						if got = s.look(t, cfg); got != want {
							t.Errorf("%v was returned, and there is %s, not %s", err, got, want)
						}
					}
					tally["left "+got]++
					switch got {
					case none:
						if err := sc.run(ctx, s, &faulttest.Steps{}); err != nil {
							t.Fatalf("step %d %s, %s: rerun: %v\n%s", at, step, b, err, s.listing())
						}
						if got := s.look(t, sc.config(s, &faulttest.Steps{})); got != sc.nodes {
							t.Errorf("the rerun left %s", got)
						}
					case sc.nodes:
					default:
						t.Errorf("there is %s", got)
					}
					s.clean(t)
					s.opensBy(t, filepath.Join(s.dir, "identity"), sc.config(s, &faulttest.Steps{}))
					if strings.HasPrefix(name, "init") {
						s.opensBy(t, s.recovery(), s.config(&faulttest.Steps{}))
					}
					if t.Failed() {
						t.Fatalf("step %d %s, %s\n%s", at, step, b, s.listing())
					}
				}
			}
			t.Logf("%d steps: %v", len(steps), tally)
		})
	}
}
