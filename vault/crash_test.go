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

// way is how a vault at a site is opened.
type way string

const (
	byKeyring   way = "keyring"
	byRecovery  way = "recovery"
	byRecipient way = "recipient"
)

// usual is the way in which the vault of a site is opened where nothing was lost.
func (s crashSite) usual() way {
	slots, err := os.ReadFile(s.db() + ".slots")
	if s.hasKeyring() && (err != nil || strings.Contains(string(slots), `"keyring": true`)) {
		return byKeyring
	}
	return byRecipient
}

func (s crashSite) config(st *faulttest.Steps) vault.Config { return s.configBy(s.usual(), st) }

func (s crashSite) configBy(w way, st *faulttest.Steps) vault.Config {
	cfg := vault.Config{Path: s.db(), FS: faulttest.FS{Steps: st}, Actor: "ops", Via: "test"}
	if s.hasKeyring() {
		cfg.Keyring = faulttest.Keyring{Dir: s.keyring(), Steps: st}
	}
	switch w {
	case byRecovery:
		cfg.Identities = identitiesIn(s.recovery())
	case byRecipient:
		cfg.Identities = []age.Identity{s.identity()}
	}
	return cfg
}

func identitiesIn(file string) []age.Identity {
	f, err := os.Open(file)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	identities, err := vault.ParseIdentities(context.Background(), f, vault.IdentityOptions{})
	if err != nil {
		panic(err)
	}
	return identities
}

// scenario is what a run does at a site.
type scenario struct {
	keyring bool // there is one at the site
	old     bool // there is a vault before, with the node "old" and a sealed key,
	keyless bool // whose key is not in the keyring
	run     func(ctx context.Context, s crashSite, st *faulttest.Steps) error
	outcome string // as look tells it
	// ways in which the vault opens after a kill, whatever it left: all of them
	// are tried.
	ways []way
	// later is the configuration in which the outcome is opened, from config's.
	later func(vault.Config) vault.Config
	// anyway is the way in which it is opened throughout; "": the usual one.
	anyway way
	// leaves says that a rerun of what was killed is not needed for a clean place,
	// but that files and items of its own may be left.
	leaves bool
}

func (sc scenario) configBy(s crashSite, w way, st *faulttest.Steps) vault.Config {
	cfg := s.configBy(w, st)
	if sc.later != nil {
		cfg = sc.later(cfg)
	}
	return cfg
}

func (sc scenario) config(s crashSite) vault.Config {
	w := sc.anyway
	if w == "" {
		w = s.usual()
	}
	return sc.configBy(s, w, &faulttest.Steps{})
}

var allWays = []way{byKeyring, byRecovery, byRecipient}

var scenarios = map[string]scenario{
	"init":                    {keyring: true, run: create, outcome: "[] generation 1, 2 slots, keyring", ways: allWays},
	"init without keyring":    {run: create, outcome: "[] generation 1, 2 slots", ways: []way{byRecovery, byRecipient}},
	"restore":                 {keyring: true, run: restoring(false), outcome: "[restored] generation 1, 1 slots, keyring", ways: []way{byKeyring, byRecipient}},
	"replace":                 {keyring: true, old: true, run: restoring(true), outcome: "[restored] generation 1, 1 slots, keyring", ways: []way{byKeyring, byRecipient}},
	"replace without keyring": {old: true, run: restoring(true), outcome: "[restored] generation 1, 1 slots", ways: []way{byRecipient}},
	"migrate":                 {keyring: true, old: true, run: migrate, outcome: "[old] generation 1, 2 slots, keyring", later: nextSchema, ways: allWays},
	"rotate":                  {keyring: true, old: true, run: rotating(byKeyring), outcome: "[old] generation 2, 2 slots, keyring", ways: allWays},
	"rotate by recovery":      {keyring: true, old: true, run: rotating(byRecovery), outcome: "[old] generation 2, 2 slots, keyring", ways: allWays},
	"rotate without keyring":  {old: true, run: rotating(byRecipient), outcome: "[old] generation 2, 2 slots", ways: []way{byRecovery, byRecipient}},
	"slot add": {keyring: true, old: true, ways: allWays, outcome: "[old] generation 1, 3 slots, keyring", run: slotting(byKeyring, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		_, err := v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient})
		return err
	})},
	"slot add recovery": {keyring: true, old: true, ways: allWays, leaves: true, outcome: "[old] generation 1, 3 slots, keyring", run: slotting(byKeyring, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		file := s.recovery() + ".second"
		leftBehind, _ := filepath.Glob(file + "*")
		for _, left := range leftBehind { // of a run that was killed: it opens nothing
			os.Remove(left)
		}
		_, err := v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecovery, Files: []vault.IdentityFile{{Path: file}}})
		return err
	})},
	"slot remove": {keyring: true, old: true, ways: []way{byKeyring, byRecipient}, outcome: "[old] generation 1, 1 slots, keyring", run: slotting(byKeyring, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		return v.RemoveSlot(ctx, recoverySlot(ctx, v))
	})},
	"slot add keyring": {keyring: true, old: true, keyless: true, ways: []way{byRecovery, byRecipient}, outcome: "[old] generation 1, 2 slots, keyring", leaves: true, run: slotting(byRecovery, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		return v.AddKeyring(ctx)
	})},
	"slot remove keyring": {keyring: true, old: true, ways: []way{byRecovery, byRecipient}, outcome: "[old] generation 1, 2 slots", leaves: true, anyway: byRecovery, run: slotting(byRecovery, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		_, err := v.RemoveKeyring(ctx)
		return err
	})},
}

// otherRecipient's identity nobody has.
const otherRecipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"

func create(ctx context.Context, s crashSite, st *faulttest.Steps) error {
	return createVault(ctx, s, st, false)
}

func createVault(ctx context.Context, s crashSite, st *faulttest.Steps, noKeyring bool) error {
	_, err := vault.Create(ctx, s.config(st), vault.CreateOptions{
		RecoveryFile: s.recovery(),
		Recipients:   []string{s.identity().Recipient().String()},
		NoKeyring:    noKeyring,
	})
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

func rotating(w way) func(context.Context, crashSite, *faulttest.Steps) error {
	return slotting(w, func(ctx context.Context, v *vault.Vault, _ crashSite) error {
		_, err := v.Rotate(ctx)
		return err
	})
}

// slotting opens the vault, and does something with it.
func slotting(w way, do func(context.Context, *vault.Vault, crashSite) error) func(context.Context, crashSite, *faulttest.Steps) error {
	return func(ctx context.Context, s crashSite, st *faulttest.Steps) error {
		v, err := vault.Open(ctx, s.configBy(w, st))
		if err != nil {
			return err
		}
		err = do(ctx, v, s)
		if e := v.Close(); err == nil {
			err = e
		}
		return err
	}
}

func recoverySlot(ctx context.Context, v *vault.Vault) (id string) {
	v.View(ctx, func(tx *vault.Tx) error {
		slots, err := tx.Slots(ctx)
		if err == nil && slots[0].Kind == vault.SlotRecovery {
			id = slots[0].ID
		}
		return err
	})
	return id
}

func restoring(replace bool) func(context.Context, crashSite, *faulttest.Steps) error {
	return func(ctx context.Context, s crashSite, st *faulttest.Steps) error {
		_, err := vault.Restore(ctx, s.config(st), vault.RestoreOptions{
			Replace: replace,
			Fill: func(ctx context.Context, tx *vault.Tx) (vault.Restored, error) {
				slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: s.identity().Recipient().String(), Created: tx.Now()}
				if err := insertNode(ctx, tx, "restored"); err != nil {
					return vault.Restored{}, err
				}
				return vault.Restored{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, insertKey(ctx, tx, "restored")
			},
		})
		return err
	}
}

func insertNode(ctx context.Context, tx *vault.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO beehives (node_name, ssh_host, ssh_user, git_repo_url, git_branch, install_path) VALUES (?, 'h', 'ops', 'https://example.org/r.git', 'main', '/opt')`, name)
	return err
}

// insertKey seals a text as a node's SSH key.
func insertKey(ctx context.Context, tx *vault.Tx, node string) error {
	fingerprint := "SHA256:" + node
	sealed, err := tx.Seal(ctx, vault.SealedSSHKey, fingerprint, []byte("private key of "+node))
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO ssh_keys (fingerprint, type, public_key, comment, private_key, created) VALUES (?, 'ssh-ed25519', '', '', ?, 0)`, fingerprint, sealed); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO beehive_ssh_keys (node_name, fingerprint) VALUES (?, ?)`, node, fingerprint)
	return err
}

// checkKeys unseals every key that insertKey sealed, and returns how many there
// are.
func checkKeys(ctx context.Context, tx *vault.Tx) (n int, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT k.fingerprint, k.private_key, n.node_name FROM ssh_keys AS k JOIN beehive_ssh_keys AS n USING (fingerprint)`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var fingerprint, node string
		var sealed []byte
		if err := rows.Scan(&fingerprint, &sealed, &node); err != nil {
			return n, err
		}
		private, err := tx.Unseal(ctx, vault.SealedSSHKey, fingerprint, sealed)
		if err != nil {
			return n, err
		}
		if string(private) != "private key of "+node {
			return n, fmt.Errorf("the key of %s unseals to another's", node)
		}
		n++
	}
	return n, rows.Err()
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
	if err := createVault(t.Context(), s, &faulttest.Steps{}, sc.keyless); err != nil {
		t.Fatal(err)
	}
	v := vaulttest.Open(t, s.configBy(s.usual(), &faulttest.Steps{}))
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		if err := insertNode(t.Context(), tx, "old"); err != nil {
			return err
		}
		return insertKey(t.Context(), tx, "old")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// killed runs a scenario, or just opens the vault in a way, in a child that is
// killed at a step, if it comes so far.
func (s crashSite) killed(t *testing.T, scenario string, open way, at int, b faulttest.Blow) {
	t.Helper()
	cmd := child("crash", strings.Join([]string{scenario, s.dir, string(open), strconv.Itoa(at), string(b)}, "|"))
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v\n%s", err, out)
	}
}

func crashChild(spec string) {
	f := strings.Split(spec, "|")
	sc, ok := scenarios[f[0]]
	if !ok {
		sc = destructions[f[0]]
	}
	s := crashSite{f[1]}
	at, _ := strconv.Atoi(f[3])
	st := &faulttest.Steps{At: at, Blow: faulttest.Blow(f[4])}
	var err error
	if f[2] != "" {
		err = openAndClose(context.Background(), sc.configBy(s, way(f[2]), st))
	} else {
		err = sc.run(context.Background(), s, st)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// look opens the vault without faults, checks all of it and tells of it, or says
// "no vault".
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
	told := ""
	err = v.View(t.Context(), func(tx *vault.Tx) error {
		if _, err := tx.VerifyAudit(t.Context()); err != nil {
			return err
		}
		if _, err := tx.Signer(t.Context()); err != nil { // a sealed column opens
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
		told = fmt.Sprintf(" generation %d, %d slots", m.Generation, len(slots))
		if m.Keyring {
			told += ", keyring"
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
	if err == nil { // and it can be written to
		err = v.Update(t.Context(), func(tx *vault.Tx) error { return nil })
	}
	if err != nil {
		t.Fatalf("look: %v", err)
	}
	return fmt.Sprint(nodes) + told
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
	cfg.Identities = identitiesIn(file)
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Fatalf("%s does not open the vault: %v", filepath.Base(file), err)
	}
}

// clears reports whether a place must be clean once the vault was opened in its
// usual way: not while what a kill left is for the rerun to take up.
func (sc scenario) clears(got string) bool {
	return got == sc.outcome || !sc.leaves && got != noVault
}

// noVault is what look says of a place without one.
const noVault = "no vault"

func TestCrashMatrix(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			counted := &faulttest.Steps{}
			ground := sc.prepare(t)
			before := ground.look(t, ground.configBy(ground.usual(), &faulttest.Steps{}))
			s := ground.copy(t)
			if err := sc.run(ctx, s, counted); err != nil {
				t.Fatal(err)
			}
			s.clean(t)
			steps := counted.Names()
			tally := map[string]int{}
			for at := 1; at <= len(steps); at++ {
				for _, b := range faulttest.Blows {
					if b == faulttest.KillBefore && at%2 == 1 && at > 1 {
						continue // the kill after the step before left the same
					}
					tally["blows"]++
					s := ground.copy(t)
					if b.Kills() {
						s.killed(t, name, "", at, b)
						for i, w := range sc.ways {
							s.recovers(t, name, w, 0, before, tally)
							if (at+i)%2 == 0 {
								s.recovers(t, name, w, 1+(at+i)/2%6, before, tally)
							}
						}
						if b == faulttest.KillBefore || at%4 == 0 {
							// And again, somewhere in what comes after: in settling, or
							// in the next run.
							again := s.usual()
							if at%4 != 2 {
								again = ""
							}
							s.killed(t, name, again, 1+at*7%(len(steps)+1), b)
							tally["struck twice"]++
						}
					} else {
						st := &faulttest.Steps{At: at, Blow: b}
						err := sc.run(ctx, s, st)
						// What is returned is the truth: an error, and nothing has
						// changed; none, and all has.
						want := sc.outcome
						if err != nil && sc.later == nil { // a migration that was done stays done
							want = before
						}
						if errors.Is(err, vault.ErrUnsettled) { // the table is ahead of the slots file
							want = sc.outcome
						}
						if got := s.look(t, sc.config(s)); got != want {
							t.Errorf("%v was returned, and there is %s, not %s", err, got, want)
						}
					}
					// What was run twice may have been done twice.
					got := strings.NewReplacer("generation 3", "generation 2", "4 slots", "3 slots").Replace(s.look(t, sc.config(s)))
					tally["left "+got]++
					switch got {
					case before:
						if err := sc.run(ctx, s, &faulttest.Steps{}); err != nil {
							t.Fatalf("step %d %s, %s: rerun: %v\n%s", at, steps[at-1], b, err, s.listing())
						}
						if got := s.look(t, sc.config(s)); got != sc.outcome {
							t.Errorf("the rerun left %s", got)
						}
					case sc.outcome:
					default:
						t.Errorf("there is %s", got)
					}
					s.clean(t)
					s.opensBy(t, filepath.Join(s.dir, "identity"), sc.config(s))
					if strings.HasPrefix(name, "init") {
						s.opensBy(t, s.recovery(), s.config(&faulttest.Steps{}))
					}
					if t.Failed() {
						t.Fatalf("step %d %s, %s\n%s", at, steps[at-1], b, s.listing())
					}
				}
			}
			t.Logf("%d steps: %v", len(steps), tally)
		})
	}
}

// recovers opens a copy of what a kill left in one way, after a second kill at a
// step of that if again is not 0, and sees that everything is there; and that
// after the next open in the usual way nothing is left over.
func (s crashSite) recovers(t *testing.T, name string, w way, again int, before string, tally map[string]int) {
	t.Helper()
	sc := scenarios[name]
	if w == byRecovery && !exists(s.recovery()) {
		return // an init that did not come so far
	}
	s = s.copy(t)
	if again > 0 {
		s.killed(t, name, w, again, faulttest.KillAfter)
		tally["killed again in settling"]++
	}
	got := s.look(t, sc.configBy(s, w, &faulttest.Steps{}))
	if got != before && got != sc.outcome {
		t.Errorf("by %s: there is %s", w, got)
	}
	tally["opened by "+string(w)]++
	s.look(t, sc.config(s))
	if sc.clears(got) {
		s.clean(t)
	}
}
