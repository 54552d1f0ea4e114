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

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// The crash matrix: each call to the file system or the keyring that a
// transition makes is one point, and at each point the call fails before its
// effect, fails after it, or the process is killed before or after it. Whatever
// happens, the old vault or the new one must stand whole, and a rerun succeed.

type blow string

const (
	failBefore blow = "fail before"
	failAfter  blow = "fail after"
	killBefore blow = "kill before"
	killAfter  blow = "kill after"
)

var errBlow = errors.New("injected fault")

// steps counts the calls and strikes at one of them. With every set it goes on
// failing from there: a disk that is full stays full.
type steps struct {
	at   int // from 1; 0: never
	blow blow
	n    int
	name string // of the call that was struck
}

func (s *steps) do(name string, call func() error) error {
	s.n++
	if s.n != s.at {
		return call()
	}
	s.name = name
	switch s.blow {
	case failBefore:
		return errBlow
	case killAfter, failAfter:
		if err := call(); err != nil {
			return err
		}
	}
	if s.blow == failAfter {
		return errBlow
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal arrives
}

// stepFS is the real file system, step by step.
type stepFS struct {
	durable.OS
	*steps
}

func (f stepFS) CreateNew(path string) (file durable.File, err error) {
	e := f.do("create "+base(path), func() error { file, err = f.OS.CreateNew(path); return err })
	if e != nil && file != nil {
		file.Close()
	}
	return stepFile{file, f.steps, path}, e
}
func (f stepFS) Rename(a, b string) error {
	return f.do("rename "+base(b), func() error { return f.OS.Rename(a, b) })
}
func (f stepFS) Link(a, b string) error {
	return f.do("link "+base(b), func() error { return f.OS.Link(a, b) })
}
func (f stepFS) Remove(path string) error {
	return f.do("remove "+base(path), func() error { return f.OS.Remove(path) })
}
func (f stepFS) Sync(path string) error {
	return f.do("sync "+base(path), func() error { return f.OS.Sync(path) })
}
func (f stepFS) SyncDir(dir string) error {
	return f.do("sync directory", func() error { return f.OS.SyncDir(dir) })
}

type stepFile struct {
	durable.File
	steps *steps
	path  string
}

func (f stepFile) Write(p []byte) (n int, err error) {
	e := f.steps.do("write "+base(f.path), func() error { n, err = f.File.Write(p); return err })
	if e != nil {
		n = 0
	}
	return n, e
}
func (f stepFile) Sync() error { return f.steps.do("fsync "+base(f.path), f.File.Sync) }

// base is a file's name without what differs from run to run.
func base(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".part-")
	name, _, _ = strings.Cut(name, ".replaced-")
	return name
}

// fileKeyring is a keyring that outlives the process: a file an item.
type fileKeyring struct {
	dir string
	*steps
}

func (k fileKeyring) Get(_ context.Context, account string) (string, error) {
	data, err := os.ReadFile(filepath.Join(k.dir, account))
	if errors.Is(err, fs.ErrNotExist) {
		return "", keyring.ErrNotFound
	}
	return string(data), err
}
func (k fileKeyring) Set(_ context.Context, account, value string) error {
	return k.do("keyring set", func() error { return os.WriteFile(filepath.Join(k.dir, account), []byte(value), 0o600) })
}
func (k fileKeyring) Delete(_ context.Context, account string) error {
	return k.do("keyring delete", func() error {
		if err := os.Remove(filepath.Join(k.dir, account)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// crashSite is a place for one vault: <dir>/v/beehives.db, <dir>/keyring,
// <dir>/recovery.txt, and <dir>/identity, which is a recipient of what is
// restored.
type crashSite struct{ dir string }

func newCrashSite(t *testing.T) crashSite {
	t.Helper()
	s := crashSite{vaulttest.Dir(t)}
	for _, dir := range []string{"v", "keyring"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "identity"), []byte(identity.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s crashSite) db() string       { return filepath.Join(s.dir, "v", "beehives.db") }
func (s crashSite) recovery() string { return filepath.Join(s.dir, "recovery.txt") }

func (s crashSite) recipient() string {
	data, err := os.ReadFile(filepath.Join(s.dir, "identity"))
	if err != nil {
		panic(err)
	}
	identity, err := age.ParseX25519Identity(string(data))
	if err != nil {
		panic(err)
	}
	return identity.Recipient().String()
}

func (s crashSite) config(st *steps) vault.Config {
	return vault.Config{Path: s.db(), Keyring: fileKeyring{filepath.Join(s.dir, "keyring"), st}, FS: stepFS{steps: st}, Actor: "ops", Via: "test"}
}

// scenarios are what a run does at a site.
var scenarios = map[string]func(ctx context.Context, s crashSite, st *steps) error{
	"init": func(ctx context.Context, s crashSite, st *steps) error {
		_, err := vault.Create(ctx, s.config(st), vault.CreateOptions{RecoveryFile: s.recovery(), Recipients: []string{s.recipient()}})
		return err
	},
	"restore": func(ctx context.Context, s crashSite, st *steps) error { return s.restore(ctx, st, false) },
	"replace": func(ctx context.Context, s crashSite, st *steps) error { return s.restore(ctx, st, true) },
	"open": func(ctx context.Context, s crashSite, st *steps) error {
		v, err := vault.Open(ctx, s.config(st))
		if err != nil {
			return err
		}
		return v.Close()
	},
}

func (s crashSite) restore(ctx context.Context, st *steps, replace bool) error {
	_, err := vault.Restore(ctx, s.config(st), vault.RestoreOptions{
		Replace: replace,
		Fill: func(ctx context.Context, tx *vault.Tx) (vault.Restored, error) {
			slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: s.recipient(), Created: tx.Now()}
			return vault.Restored{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, insertNode(ctx, tx, "restored")
		},
	})
	return err
}

func insertNode(ctx context.Context, tx *vault.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO beehives (node_name, ssh_host, ssh_user, git_repo_url, git_branch, install_path) VALUES (?, 'h', 'ops', 'https://example.org/r.git', 'main', '/opt')`, name)
	return err
}

// prepare lays the ground: a vault with a row, for those that replace or open.
func (s crashSite) prepare(t *testing.T, scenario string) {
	t.Helper()
	if scenario != "replace" {
		return
	}
	if err := scenarios["init"](t.Context(), s, &steps{}); err != nil {
		t.Fatal(err)
	}
	v := vaulttest.Open(t, s.config(&steps{}))
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return insertNode(t.Context(), tx, "old") }); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// strike runs the scenario with a blow: in this process, or for a kill in a
// child.
func (s crashSite) strike(t *testing.T, scenario string, at int, b blow) {
	t.Helper()
	if b == failBefore || b == failAfter {
		scenarios[scenario](t.Context(), s, &steps{at: at, blow: b}) // its error is not the point
		return
	}
	cmd := child("crash", strings.Join([]string{scenario, s.dir, strconv.Itoa(at), string(b)}, "|"))
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v\n%s", err, out)
	}
}

func crashChild(spec string) {
	f := strings.Split(spec, "|")
	at, _ := strconv.Atoi(f[2])
	if err := scenarios[f[0]](context.Background(), crashSite{f[1]}, &steps{at: at, blow: blow(f[3])}); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// nodes opens the vault without faults and returns its rows, or nil when there
// is none.
func (s crashSite) nodes(t *testing.T) []string {
	t.Helper()
	v, err := vault.Open(t.Context(), s.config(&steps{}))
	if errors.Is(err, vault.ErrNoVault) {
		return nil
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
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return nodes
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
	entries, err := os.ReadDir(filepath.Dir(s.db()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.Contains(name, ".part-") || strings.Contains(name, ".new") || strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-journal") {
			t.Errorf("%s is left over", name)
		}
		if name == "beehives.db" || strings.Contains(name, ".replaced-") && !strings.Contains(name, ".slots") {
			data, err := os.ReadFile(filepath.Join(filepath.Dir(s.db()), name))
			if err != nil {
				t.Fatal(err)
			}
			keys[fmt.Sprintf("%x", data[:16])] = true
		}
	}
	items, err := os.ReadDir(filepath.Join(s.dir, "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if !keys[item.Name()] {
			t.Errorf("keyring item %s belongs to no database", item.Name())
		}
		delete(keys, item.Name())
	}
	for key := range keys {
		t.Errorf("database %s has no keyring item", key)
	}
	slots, err := os.ReadFile(s.db() + ".slots")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(slots), `"key_id"`); n != 1 {
		t.Errorf("%d entries in the slots file", n)
	}
}

// opensBy checks that an identity file opens the vault.
func (s crashSite) opensBy(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cfg := s.config(&steps{})
	if cfg.Identities, err = vault.ParseIdentities(f); err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("%s does not open the vault: %v", filepath.Base(file), err)
	}
	v.Close()
}

func TestCrashMatrix(t *testing.T) {
	for _, scenario := range []string{"init", "restore", "replace"} {
		t.Run(scenario, func(t *testing.T) {
			counted := &steps{}
			s := newCrashSite(t)
			s.prepare(t, scenario)
			if err := scenarios[scenario](t.Context(), s, counted); err != nil {
				t.Fatal(err)
			}
			s.clean(t)
			tally := map[string]int{}
			for at := 1; at <= counted.n; at++ {
				for _, b := range []blow{failBefore, failAfter, killBefore, killAfter} {
					s := newCrashSite(t)
					s.prepare(t, scenario)
					s.strike(t, scenario, at, b)
					if b == killBefore || b == killAfter {
						// And again, somewhere in what comes after: in settling, or in
						// the next run.
						second := []string{"open", scenario}[at%2]
						s.strike(t, second, 1+at*7%(counted.n+1), b)
						tally["struck twice"]++
					}
					nodes := s.nodes(t)
					switch {
					case nodes == nil && scenario != "replace":
						tally["no vault"]++
						if err := scenarios[scenario](t.Context(), s, &steps{}); err != nil {
							t.Fatalf("step %d, %s: rerun: %v\n%s", at, b, err, s.listing())
						}
						nodes = s.nodes(t)
					case len(nodes) == 1 && nodes[0] == "old":
						tally["old vault"]++
						if err := scenarios[scenario](t.Context(), s, &steps{}); err != nil {
							t.Fatalf("step %d, %s: rerun: %v\n%s", at, b, err, s.listing())
						}
						nodes = s.nodes(t)
					default:
						tally["new vault"]++
					}
					want := map[string]string{"init": "[]", "restore": "[restored]", "replace": "[restored]"}[scenario]
					if got := fmt.Sprint(nodes); got != want {
						t.Errorf("step %d, %s: nodes %s, want %s", at, b, got, want)
					}
					s.clean(t)
					s.opensBy(t, filepath.Join(s.dir, "identity"))
					if scenario == "init" {
						s.opensBy(t, s.recovery())
					}
					if t.Failed() {
						t.Fatalf("step %d, %s\n%s", at, b, s.listing())
					}
				}
			}
			t.Logf("%d steps: %v", counted.n, tally)
		})
	}
}
