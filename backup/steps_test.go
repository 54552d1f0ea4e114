package backup_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// A job is run with a fault at each of its steps: calls of the file system.
type job func(ctx context.Context, v *vault.Vault, steps *faulttest.Steps) error

var jobs = map[string]job{"drill": drillNewest, "prune": pruneOld}

// pruneOld removes all backups but the newest.
func pruneOld(ctx context.Context, v *vault.Vault, steps *faulttest.Steps) error {
	opts := backup.PruneOptions{Keep: backup.Keep{Last: 1}}
	dir := filepath.Join(filepath.Dir(v.Path()), "backups")
	opts.Wrap(func(s backup.Store) backup.Store { return stepStore{s, steps, dir} })
	plan, err := backup.PlanPrune(ctx, v, opts)
	if err != nil {
		return err
	}
	done, err := backup.Prune(ctx, v, plan, opts)
	for _, p := range done {
		if err == nil {
			err = p.Err
		}
	}
	return err
}

// stepStore is a store whose calls are steps.
type stepStore struct {
	backup.Store
	steps *faulttest.Steps
	dir   string
}

func (s stepStore) Open(ctx context.Context, name, version string) (r io.ReadCloser, err error) {
	err = s.steps.Do("open", func() (err error) {
		r, err = s.Store.Open(ctx, name, version)
		return err
	})
	return r, err
}

func (s stepStore) Remove(ctx context.Context, name, version string) error {
	if s.steps.Disk == nil {
		return s.steps.Do("remove", func() error { return s.Store.Remove(ctx, name, version) })
	}
	// The same calls as those of the store, on the disk that forgets.
	fs := faulttest.FS{Steps: s.steps}
	if err := fs.Remove(filepath.Join(s.dir, name)); err != nil {
		return err
	}
	return fs.SyncDir(s.dir)
}

// drillNewest tries the newest backup out.
func drillNewest(ctx context.Context, v *vault.Vault, _ *faulttest.Steps) error {
	records, err := backup.List(ctx, v)
	if err != nil {
		return err
	}
	f, err := os.Open(records[len(records)-1].Copies[0].Name)
	if err != nil {
		return err
	}
	defer f.Close()
	identity, err := readIdentity(v.Path())
	if err != nil {
		return err
	}
	_, err = backup.Prove(ctx, v, f, backup.DrillOptions{ReadOptions: backup.ReadOptions{Identities: []age.Identity{identity}}})
	return err
}

// readIdentity reads the identity beside the vault's directory.
func readIdentity(db string) (*age.X25519Identity, error) {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(db), "identity"))
	if err != nil {
		return nil, err
	}
	return age.ParseX25519Identity(string(data))
}

func stepsConfig(db string, steps *faulttest.Steps) (vault.Config, error) {
	identity, err := readIdentity(db)
	return vault.Config{Path: db, Identities: []age.Identity{identity}, FS: faulttest.FS{Steps: steps}}, err
}

// runJob opens the vault and runs a job, counting only the job's own steps.
func runJob(ctx context.Context, name, db string, steps *faulttest.Steps) error {
	cfg, err := stepsConfig(db, steps)
	if err != nil {
		return err
	}
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer v.Close()
	return jobs[name](ctx, v, steps)
}

func stepsChild(spec string) {
	f := strings.Split(spec, "|")
	at, _ := strconv.Atoi(f[2])
	steps := &faulttest.Steps{At: at, Fault: faulttest.Fault(f[3])}
	if slices.Contains(faulttest.Cuts, steps.Fault) {
		steps.Disk = &faulttest.Disk{Lost: filepath.Join(filepath.Dir(f[1]), "lost")}
	}
	if err := runJob(context.Background(), f[0], f[1], steps); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	steps.End()
}

// stepsSite makes a vault with three backups beside it.
func stepsSite(t *testing.T) string {
	t.Helper()
	cfg, v := fleet(t)
	dir := filepath.Dir(cfg.Path)
	for range 3 {
		if _, err := backup.Create(t.Context(), v, backup.CreateOptions{Dir: filepath.Join(dir, "backups")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "identity"), []byte(cfg.Identities[0].(*age.X25519Identity).String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg.Path
}

// eachStep runs a job with each fault and each power cut at each of its steps, and after that
// without a fault. Then
// check looks at what is left.
func eachStep(t *testing.T, name string, check func(t *testing.T, v *vault.Vault)) {
	t.Helper()
	counted := &faulttest.Steps{}
	if err := runJob(t.Context(), name, stepsSite(t), counted); err != nil {
		t.Fatal(err)
	}
	if counted.N() < 4 {
		t.Fatalf("only %d steps: %v", counted.N(), counted.Names())
	}
	cut := &faulttest.Steps{Disk: &faulttest.Disk{Lost: t.TempDir()}}
	if err := runJob(t.Context(), name, stepsSite(t), cut); err != nil {
		t.Fatal(err)
	}
	names := append(cut.Names(), "the end")
	for at := range names {
		at++
		for _, fault := range append(faulttest.Faults, faulttest.Cuts...) {
			ends := fault.Kills() || slices.Contains(faulttest.Cuts, fault)
			if at > counted.N() && !slices.Contains(faulttest.Cuts, fault) {
				continue
			}
			db := stepsSite(t)
			if ends {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), fmt.Sprintf("RBEE_TEST_STEPS=%s|%s|%d|%s", name, db, at, fault))
				if out, err := cmd.CombinedOutput(); err == nil {
					t.Fatalf("step %d was not reached: %s", at, out)
				}
				noFileHolds(t, filepath.Dir(db), "hive-01.example.org")
			} else {
				runJob(t.Context(), name, db, &faulttest.Steps{At: at, Fault: fault})
			}
			if err := runJob(t.Context(), name, db, &faulttest.Steps{}); err != nil {
				t.Fatalf("step %d %s, %s; then: %v", at, names[at-1], fault, err)
			}
			cfg, err := stepsConfig(db, &faulttest.Steps{})
			if err != nil {
				t.Fatal(err)
			}
			v := vaulttest.Open(t, cfg)
			check(t, v)
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if t.Failed() {
				t.Fatalf("step %d %s, %s", at, names[at-1], fault)
			}
		}
	}
	t.Logf("%d steps, %d cuts: %v", counted.N(), len(names), names)
}

// TestDrillSteps: a drill that fails or is killed at any step leaves the vault as it was, and the
// next one leaves no throwaway vault.
func TestDrillSteps(t *testing.T) {
	eachStep(t, "drill", func(t *testing.T, v *vault.Vault) {
		noRehearsal(t, vault.Config{Path: v.Path()})
		if all := content(t, v); len(all.Nodes) != 2 || len(all.PEMs) != 2 {
			t.Errorf("%d nodes, %d keys", len(all.Nodes), len(all.PEMs))
		}
		records, err := backup.List(t.Context(), v)
		if err != nil || len(records) != 3 || records[2].Proven.IsZero() {
			t.Errorf("%+v, %v", records, err)
		}
	})
}

// TestPruneSteps: a prune that fails or is killed at any step removes nothing that is to be kept,
// and the next one brings files and records together.
func TestPruneSteps(t *testing.T) {
	eachStep(t, "prune", func(t *testing.T, v *vault.Vault) {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(v.Path()), "backups", "*"))
		if err != nil || len(files) != 1 {
			t.Errorf("%q, %v", files, err)
		}
		records, err := backup.List(t.Context(), v)
		if err != nil || len(records) != 3 {
			t.Fatalf("%+v, %v", records, err)
		}
		for i, want := range []backup.FileState{backup.FileRemoved, backup.FileRemoved, backup.FileIntact} {
			if s := records[i].State(records[i].Copies[0], true); s != want {
				t.Errorf("backup %d is %s, want %s", i+1, s, want)
			}
		}
	})
}
