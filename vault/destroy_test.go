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

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// destructions leave no vault to open, so they are not in TestCrashMatrix.
var destructions = map[string]scenario{
	"destroy":                 {keyring: true, old: true, run: destroy},
	"destroy without keyring": {old: true, run: destroy},
}

func destroy(ctx context.Context, s crashSite, st *faulttest.Steps) error {
	_, err := vault.Destroy(ctx, s.config(st))
	return err
}

// files lists the files beside a database, without the locks.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !slices.Contains([]string{".lock", ".write", ".turn", ".anchor"}, ext) {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestDestroy(t *testing.T) {
	cfg, k, identity := keyringVault(t)
	cfg.Now = func() time.Time { return time.UnixMilli(1767323045123) }
	for _, suffix := range []string{"", ".slots"} {
		write(t, cfg.Path+".before-v1"+suffix, read(t, cfg.Path+suffix))
	}
	write(t, cfg.Path+".slots.foreign-20260101T000000Z", read(t, cfg.Path+".slots"))
	stranger, _, _ := keyringVault(t)
	write(t, cfg.Path+".slots.foreign-20260102T000000Z", read(t, stranger.Path+".slots"))
	write(t, cfg.Path+".new", nil)
	// A restore replaced the first vault. It was set aside and is a vault of its own.
	_, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{Replace: true, Fill: func(_ context.Context, tx *vault.Tx) (vault.Backup, error) {
		slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: identity.Recipient().String(), Created: tx.Now()}
		return vault.Backup{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	aside := cfg.Path + ".replaced-20260102T030405Z"
	if accounts, _ := k.Accounts(); len(accounts) != 4 {
		t.Fatalf("items %v, want two keys and two anchors", accounts)
	}

	plan, err := vault.PlanDestruction(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	done, err := vault.Destroy(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(plan.Files, done.Files) || !slices.Equal(plan.Accounts, done.Accounts) {
		t.Errorf("planned %+v, done %+v", plan, done)
	}
	want := []string{filepath.Base(aside), filepath.Base(aside) + ".slots", "beehives.db.before-v1", "beehives.db.before-v1.slots", "beehives.db.slots.foreign-20260101T000000Z", "beehives.db.slots.foreign-20260102T000000Z"}
	slices.Sort(want)
	if got := files(t, filepath.Dir(cfg.Path)); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
	if accounts, _ := k.Accounts(); len(accounts) != 2 {
		t.Errorf("items %v, want those of the vault set aside", accounts)
	}
	if !slices.Contains(done.Left, aside) {
		t.Errorf("left %v", done.Left)
	}
	if _, err := vault.Destroy(t.Context(), cfg); !errors.Is(err, vault.ErrNoVault) {
		t.Errorf("again: %v, want ErrNoVault", err)
	}

	// The vault that was set aside opens by its own key, until it is destroyed too.
	byAside := cfg
	byAside.Path = aside
	if err := openAndClose(t.Context(), byAside); err != nil {
		t.Error(err)
	}
	for left := 2; left >= 0; left -= 2 {
		if _, err := vault.Destroy(t.Context(), byAside); err != nil {
			t.Fatal(err)
		}
		if accounts, _ := k.Accounts(); len(accounts) != left {
			t.Errorf("items %v, want %d: a copy from before a migration has the same key", accounts, left)
		}
		byAside.Path = cfg.Path + ".before-v1"
	}
}

// TestDestroyTakesNothingOfOthers: Destroy must not delete what a slots file of another
// database names, what a file that cannot be read may need, or a file that only looks like a
// copy.
func TestDestroyTakesNothingOfOthers(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, mine, theirs vault.Config){
		"their slots file beside mine": func(t *testing.T, mine, theirs vault.Config) {
			write(t, mine.Path+".slots", read(t, theirs.Path+".slots"))
		},
		"an entry of theirs in mine": func(t *testing.T, mine, theirs vault.Config) {
			addEntry(t, mine.Path+".slots", map[string]any{
				"vault_id": strings.TrimSuffix(accountsOf(t, theirs)[1], "/anchor"), "key_id": keyIDs(t, theirs.Path+".slots")[0],
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			mine, k, _ := keyringVault(t)
			theirs := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Keyring: k}
			if _, err := vault.Create(t.Context(), theirs, vault.CreateOptions{Recipients: []string{newIdentity(t).Recipient().String()}}); err != nil {
				t.Fatal(err)
			}
			spoil(t, mine, theirs)
			write(t, mine.Path+".before-vacation", []byte("mine"))
			done, err := vault.Destroy(t.Context(), mine)
			if err != nil || len(done.LeftAccounts) == 0 {
				t.Errorf("%+v, %v", done, err)
			}
			if err := openAndClose(t.Context(), theirs); err != nil {
				t.Errorf("the other vault: %v", err)
			}
			if anchorOf(t, k) == "" || !exists(mine.Path+".before-vacation") {
				t.Error("something of others is gone")
			}
		})
	}
}

// accountsOf returns the accounts of a vault's two keyring items: key and anchor.
func accountsOf(t *testing.T, cfg vault.Config) []string {
	t.Helper()
	plan, err := vault.PlanDestruction(t.Context(), cfg)
	if err != nil || len(plan.Accounts) != 2 {
		t.Fatalf("%+v, %v", plan, err)
	}
	slices.SortFunc(plan.Accounts, func(a, b string) int { return len(a) - len(b) })
	return plan.Accounts
}

// TestDestroyKeepsSharedKeys: a copy that a migration set aside has the same key as the vault
// in place. That vault stays, even if it is open or cannot be read.
func TestDestroyKeepsSharedKeys(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	aside := cfg
	aside.Path += ".before-v1"
	for _, suffix := range []string{"", ".slots"} {
		write(t, aside.Path+suffix, read(t, cfg.Path+suffix))
	}
	v := vaulttest.Open(t, cfg)
	if _, err := vault.Destroy(t.Context(), aside); !errors.Is(err, vault.ErrAlreadyOpen) {
		t.Errorf("while it is open: %v, want ErrAlreadyOpen", err)
	}
	v.Close()
	whole := read(t, cfg.Path)
	write(t, cfg.Path, nil)
	if plan, err := vault.PlanDestruction(t.Context(), aside); err != nil || len(plan.Accounts) != 0 || len(plan.LeftAccounts) != 2 {
		t.Errorf("while it cannot be read: %+v, %v", plan, err)
	}
	write(t, cfg.Path, whole)
	if done, err := vault.Destroy(t.Context(), aside); err != nil || len(done.Accounts) != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if accounts, _ := k.Accounts(); len(accounts) != 2 || exists(aside.Path) || exists(aside.Path+".slots") {
		t.Errorf("items %v", accounts)
	}
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

func TestDestroyRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, cfg *vault.Config)
		want  error
	}{
		"nothing":            {func(t *testing.T, cfg *vault.Config) { cfg.Path += "-other" }, vault.ErrNoVault},
		"a plaintext file":   {func(t *testing.T, cfg *vault.Config) { write(t, cfg.Path, []byte("SQLite format 3\x00 and more")) }, vault.ErrPlaintext},
		"any file":           {func(t *testing.T, cfg *vault.Config) { cfg.Path += "-any"; write(t, cfg.Path, make([]byte, 9000)) }, vault.ErrInvalid},
		"a short file":       {func(t *testing.T, cfg *vault.Config) { cfg.Path += "-any"; write(t, cfg.Path, []byte("notes")) }, vault.ErrDamaged},
		"a silent keyring":   {func(t *testing.T, cfg *vault.Config) { cfg.Keyring = answering{err: keyring.ErrTimeout} }, keyring.ErrTimeout},
		"no keyring":         {func(t *testing.T, cfg *vault.Config) { cfg.Keyring = nil }, keyring.ErrUnavailable},
		"one that is open":   {func(t *testing.T, cfg *vault.Config) { vaulttest.Open(t, *cfg) }, vault.ErrAlreadyOpen},
		"open to the others": {func(t *testing.T, cfg *vault.Config) { os.Chmod(cfg.Path, 0o644) }, vault.ErrInsecure},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _, _ := keyringVault(t)
			test.spoil(t, &cfg)
			before := files(t, filepath.Dir(cfg.Path))
			if _, err := vault.Destroy(t.Context(), cfg); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if after := files(t, filepath.Dir(cfg.Path)); !slices.Equal(after, before) {
				t.Errorf("%q became %q", before, after)
			}
		})
	}
	// Another process has it open.
	cfg := vaulttest.Config(t)
	cmd := child("hold", childSpec(cfg))
	if lines := start(t, cmd); !lines.Scan() {
		t.Fatal("the child does not open the vault")
	}
	cfg.Wait = 50 * time.Millisecond
	if _, err := vault.Destroy(t.Context(), cfg); !errors.Is(err, vault.ErrLocked) || !exists(cfg.Path) {
		t.Errorf("%v, want ErrLocked", err)
	}
}

// TestDestroyUnreadable: a vault that nobody can open any more is destroyed too, if a slots
// file or the keyring shows what it was.
func TestDestroyUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, cfg vault.Config){
		"no database":   func(t *testing.T, cfg vault.Config) { os.Remove(cfg.Path) },
		"no slots file": func(t *testing.T, cfg vault.Config) { os.Remove(cfg.Path + ".slots") },
		"empty":         func(t *testing.T, cfg vault.Config) { write(t, cfg.Path, nil) },
		"damaged salt":  func(t *testing.T, cfg vault.Config) { write(t, cfg.Path, make([]byte, 9000)) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg, k, _ := keyringVault(t)
			spoil(t, cfg)
			done, err := vault.Destroy(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			accounts, _ := k.Accounts()
			accounts = slices.DeleteFunc(accounts, func(a string) bool { return slices.Contains(done.LeftAccounts, a) }) // the result reports these
			accounts = slices.DeleteFunc(accounts, func(a string) bool { return strings.HasSuffix(a, "/anchor") && name == "no slots file" })
			if len(accounts) != 0 || len(files(t, filepath.Dir(cfg.Path))) != 0 {
				t.Errorf("left: %v, %v", accounts, files(t, filepath.Dir(cfg.Path)))
			}
		})
	}
}

// TestDestroyUnderFaults makes each step fail. After that the vault opens by its recipient as
// long as its files exist, and a rerun removes the rest.
func TestDestroyUnderFaults(t *testing.T) {
	for name, sc := range destructions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ground := sc.prepare(t)
			counted := &faulttest.Steps{}
			if err := destroy(t.Context(), ground.copy(t), counted); err != nil {
				t.Fatal(err)
			}
			faults := 0
			for at := 1; at <= len(counted.Names()); at++ {
				for _, b := range faulttest.Faults {
					faults++
					s := ground.copy(t)
					if b.Kills() {
						s.killed(t, name, "", at, b)
					} else {
						destroy(t.Context(), s, &faulttest.Steps{At: at, Fault: b})
					}
					if exists(s.db()) && exists(s.db()+".slots") {
						cfg := s.configBy(byRecipient, &faulttest.Steps{})
						cfg.Identities, cfg.ConfirmSigner = []age.Identity{s.identity()}, vaulttest.AcceptSigner
						s.look(t, cfg)
					}
					err := destroy(t.Context(), s, &faulttest.Steps{})
					if err != nil && !errors.Is(err, vault.ErrNoVault) {
						t.Errorf("step %d, %s: rerun: %v", at, b, err)
					}
					if left := files(t, filepath.Dir(s.db())); len(left) > 0 {
						t.Errorf("step %d, %s: %v is left", at, b, left)
					}
					if s.hasKeyring() {
						if accounts, _ := (faulttest.Keyring{Dir: s.keyring()}).Accounts(); len(accounts) > 0 {
							t.Errorf("step %d, %s: items %v are left", at, b, accounts)
						}
					}
				}
			}
			t.Logf("%d steps, %d faults", len(counted.Names()), faults)
		})
	}
}

// TestDestroyKeepsReplacedKeys: the key of a replaced vault is needed by its files, wherever
// they are now.
func TestDestroyKeepsReplacedKeys(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	if err := k.Set(t.Context(), otherKeyID, "its key"); err != nil {
		t.Fatal(err)
	}
	addEntry(t, cfg.Path+".slots", map[string]any{"state": "replaced"})
	if done, err := vault.Destroy(t.Context(), cfg); err != nil || len(done.Accounts) != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	if accounts, err := k.Accounts(); err != nil || !slices.Equal(accounts, []string{otherKeyID}) {
		t.Errorf("items %v, %v", accounts, err)
	}
}

// TestDestroyWithoutItsEntry: a copy of the vault in place has lost its slots file. Destroying
// that copy keeps the key.
func TestDestroyWithoutItsEntry(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	aside := cfg
	aside.Path += ".replaced-20260101T000000Z"
	write(t, aside.Path, read(t, cfg.Path))
	done, err := vault.Destroy(t.Context(), aside)
	if err != nil || len(done.Accounts) != 0 || len(done.LeftAccounts) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}
