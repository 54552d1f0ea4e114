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
	"time"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// interruptedInit makes a place where an init was interrupted right before its commit, after it
// had handed over its recovery identity.
func interruptedInit(t *testing.T) crashSite {
	t.Helper()
	scout, s := newCrashSite(t, true), newCrashSite(t, true)
	counted := &faulttest.Steps{}
	if err := create(t.Context(), scout, counted); err != nil {
		t.Fatal(err)
	}
	at := slices.Index(counted.Names(), "link beehives.db") + 1
	if err := create(t.Context(), s, &faulttest.Steps{At: at, Fault: faulttest.FailOnwards}); !errors.Is(err, faulttest.ErrFault) {
		t.Fatalf("%v, want the fault", err)
	}
	if !exists(s.recovery()) || !exists(s.db()+".new") || exists(s.db()) {
		t.Fatalf("not interrupted before its commit:\n%s", s.listing())
	}
	return s
}

func identityLine(t *testing.T, path string) string {
	t.Helper()
	for line := range strings.Lines(string(read(t, path))) {
		if strings.HasPrefix(line, "AGE-SECRET-KEY-") {
			return line
		}
	}
	t.Fatalf("no identity in %s", path)
	return ""
}

// TestInterruptedInitGoesOn: the operator may already have copied the file. So the new vault
// uses the same identity.
func TestInterruptedInitGoesOn(t *testing.T) {
	s := interruptedInit(t)
	before := identityLine(t, s.recovery())
	if err := create(t.Context(), s, &faulttest.Steps{}); err != nil {
		t.Fatal(err)
	}
	if after := identityLine(t, s.recovery()); after != before {
		t.Error("the rerun made another identity")
	}
	s.opensBy(t, s.recovery(), s.config(&faulttest.Steps{}))
	s.clean(t)
}

// TestInterruptedInitFailsAgain: after a rerun that fails at any step, the next rerun succeeds
// with the same file.
func TestInterruptedInitFailsAgain(t *testing.T) {
	t.Parallel()
	counted := &faulttest.Steps{}
	if err := create(t.Context(), interruptedInit(t), counted); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= len(counted.Names()); at++ {
		for _, b := range []faulttest.Fault{faulttest.FailBefore, faulttest.FailAfter, faulttest.FailOnwards} {
			s := interruptedInit(t)
			err := create(t.Context(), s, &faulttest.Steps{At: at, Fault: b})
			if err != nil {
				err = create(t.Context(), s, &faulttest.Steps{})
			}
			if err != nil {
				t.Errorf("step %d (%s), %s: %v\n%s", at, counted.Names()[at-1], b, err, s.listing())
				continue
			}
			s.look(t, s.config(&faulttest.Steps{}))
			s.clean(t)
			s.opensBy(t, s.recovery(), s.config(&faulttest.Steps{}))
		}
	}
}

// TestRecoveryFileIsNeverReplaced: an existing file stays, and no vault is made.
func TestRecoveryFileIsNeverReplaced(t *testing.T) {
	for name, content := range map[string]string{
		"nothing":              "",
		"text":                 "notes\n",
		"another identity":     newIdentity(t).String() + "\n",
		"several identities":   newIdentity(t).String() + "\n" + newIdentity(t).String() + "\n",
		"of another vault too": "# rbee-vault recovery identity\n" + newIdentity(t).String() + "\n",
	} {
		for _, s := range []crashSite{newCrashSite(t, true), interruptedInit(t)} {
			write(t, s.recovery(), []byte(content))
			if err := create(t.Context(), s, &faulttest.Steps{}); !errors.Is(err, vault.ErrFileExists) {
				t.Errorf("%s: %v, want ErrFileExists", name, err)
			}
			if !bytes.Equal(read(t, s.recovery()), []byte(content)) || exists(s.db()) {
				t.Errorf("%s: the file was changed, or there is a vault", name)
			}
		}
	}
	s := newCrashSite(t, true)
	if err := os.Remove(filepath.Dir(s.recovery())); err != nil {
		t.Fatal(err)
	}
	if err := create(t.Context(), s, &faulttest.Steps{}); !errors.Is(err, os.ErrNotExist) || exists(s.db()) {
		t.Errorf("no directory: %v, want fs.ErrNotExist", err)
	}
}

func TestRecoveryFile(t *testing.T) {
	r := vault.NewIdentity{
		Identity:  "AGE-SECRET-KEY-1QQQ",
		Recipient: "age1qqq",
		VaultID:   anotherVault,
		Signer:    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW",
		Created:   time.UnixMilli(1767323045123),
	}
	const want = `# rbee-vault recovery identity: opens the vault and its backups.
# Keep it offline, and apart from the machine that holds the vault.
# vault id: 6b1f8c1e-3b5b-4b8e-9f0a-0d6a5d2c7e11
# created: 2026-01-02T03:04:05.123Z
# recipient: age1qqq
# signer: SHA256:B1WLlygWhp0GyMfnBs5Rbv6C2k++R1yWXabCgSGSzFA
# allowed_signers: rbee-vault namespaces="rbee-vault-backup,rbee-vault-drill" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW
AGE-SECRET-KEY-1QQQ
`
	if got := string(r.File()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestShowRecovery: the vault is made when the operator has the identity, and not before.
func TestShowRecovery(t *testing.T) {
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}
	refused := errors.New("not confirmed")
	opts := vault.CreateOptions{ShowRecovery: func(context.Context, vault.NewIdentity) error { return refused }}
	if _, err := vault.Create(t.Context(), cfg, opts); !errors.Is(err, refused) {
		t.Errorf("%v, want the refusal", err)
	}
	if _, err := vault.Open(t.Context(), cfg); !errors.Is(err, vault.ErrNoVault) {
		t.Errorf("%v, want ErrNoVault", err)
	}
	for _, path := range []string{cfg.Path, cfg.Path + ".new", cfg.Path + ".slots"} {
		if exists(path) {
			t.Errorf("%s is left", path)
		}
	}
	var shown vault.NewIdentity
	opts.ShowRecovery = func(_ context.Context, r vault.NewIdentity) error {
		if exists(cfg.Path) {
			t.Error("the vault is there before its identity was shown")
		}
		shown = r
		return nil
	}
	done, err := vault.Create(t.Context(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	if shown.VaultID != done.VaultID || shown.Signer != done.Signer || shown.Recipient != done.RecoveryRecipient {
		t.Errorf("shown %s, made %+v", shown.VaultID, done)
	}
	if cfg.Identities, err = identity.Parse(t.Context(), strings.NewReader(string(shown.File())), identity.Options{}); err != nil {
		t.Fatal(err)
	}
	vaulttest.Open(t, cfg)
}

// canceling cancels a context at its nth call.
type canceling struct {
	durable.OS
	n, at  int
	cancel context.CancelFunc
}

func (c *canceling) count() {
	if c.n++; c.n == c.at {
		c.cancel()
	}
}
func (c *canceling) CreateNew(path string) (durable.File, error) {
	c.count()
	return c.OS.CreateNew(path)
}
func (c *canceling) Rename(a, b string) error       { c.count(); return c.OS.Rename(a, b) }
func (c *canceling) Link(a, b string) error         { c.count(); return c.OS.Link(a, b) }
func (c *canceling) Remove(path string) error       { c.count(); return c.OS.Remove(path) }
func (c *canceling) Sync(path string) error         { c.count(); return c.OS.Sync(path) }
func (c *canceling) SyncDir(directory string) error { c.count(); return c.OS.SyncDir(directory) }

// TestCanceledTransition: an operator who interrupts gets the truth. Either the vault exists,
// or the error says that it does not.
func TestCanceledTransition(t *testing.T) {
	made := 0
	for at, last := 1, false; !last; at++ {
		ctx, cancel := context.WithCancel(t.Context())
		fsys := &canceling{at: at, cancel: cancel}
		cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), FS: fsys}
		identity := newIdentity(t)
		_, err := vault.Create(ctx, cfg, vault.CreateOptions{Recipients: []string{identity.Recipient().String()}})
		last = fsys.n < at
		switch {
		case err == nil:
			made++
			if !exists(cfg.Path) {
				t.Errorf("call %d: no error, and no vault", at)
			}
		case !errors.Is(err, context.Canceled):
			t.Errorf("call %d: %v, want context.Canceled", at, err)
		case exists(cfg.Path) || exists(cfg.Path+".slots") || exists(cfg.Path+".new"):
			t.Errorf("call %d: %v, and something is there", at, err)
		}
		cancel()
	}
	if made < 2 {
		t.Errorf("%d vaults were made: none after its commit was begun", made)
	}
}

// unwilling is a keyring that does not store anything.
type unwilling struct{ answering }

func (unwilling) Set(context.Context, string, string) error { return keyring.ErrReadBack }
func (unwilling) Delete(context.Context, string) error      { return nil }

// TestRecoverySheets: further files get the recovery identity too. Where no vault is made after
// all, they are gone again, and no file is replaced.
func TestRecoverySheets(t *testing.T) {
	page := func(_ context.Context, n vault.NewIdentity) ([]byte, error) { return n.Sheet(), nil }
	dir := t.TempDir()
	first, second, recovery := filepath.Join(dir, "first.txt"), filepath.Join(dir, "second.txt"), filepath.Join(dir, "r.txt")
	opts := vault.CreateOptions{RecoverySheets: []vault.IdentityFile{{Path: first, Encode: page}, {Path: second, Encode: page}}}
	for name, fail := range map[string]func(*vault.Config, *vault.CreateOptions){
		"the page cannot be made": func(_ *vault.Config, o *vault.CreateOptions) {
			o.RecoverySheets = append(o.RecoverySheets[:1:1], vault.IdentityFile{Path: second, Encode: func(context.Context, vault.NewIdentity) ([]byte, error) { return nil, errors.New("no page") }})
		},
		"the keyring does not take the key": func(c *vault.Config, _ *vault.CreateOptions) {
			c.Keyring = unwilling{answering{err: keyring.ErrNotFound}}
		},
		"given twice": func(_ *vault.Config, o *vault.CreateOptions) { o.RecoveryFile = first },
	} {
		cfg, failing := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}, opts
		fail(&cfg, &failing)
		if _, err := vault.Create(t.Context(), cfg, failing); err == nil {
			t.Errorf("%s: no error", name)
		}
		if exists(cfg.Path) || exists(first) || exists(second) {
			t.Errorf("%s: there is a vault or a sheet", name)
		}
	}
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}
	opts.RecoveryFile = recovery
	if _, err := vault.Create(t.Context(), cfg, opts); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{first, second, recovery} {
		opened := cfg
		opened.Identities = identitiesIn(path)
		opened.ConfirmSigner = vaulttest.AcceptSigner
		vaulttest.Open(t, opened).Close()
	}
	before := read(t, first)
	opts.RecoveryFile = ""
	if _, err := vault.Create(t.Context(), vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db")}, opts); !errors.Is(err, vault.ErrFileExists) || !bytes.Equal(before, read(t, first)) {
		t.Errorf("%v, want ErrFileExists and the sheet unchanged", err)
	}
}
