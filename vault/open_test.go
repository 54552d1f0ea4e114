package vault_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// copyOut reads a file in another process.
func copyOut(t *testing.T, path string) ([]byte, error) {
	t.Helper()
	return exec.Command("cat", path).Output()
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// keyringVault makes a vault whose key is in a keyring.
func keyringVault(t *testing.T) (vault.Config, faulttest.Keyring, *age.X25519Identity) {
	t.Helper()
	k := faulttest.Keyring{Dir: vaulttest.Dir(t), Steps: &faulttest.Steps{}}
	identity := newIdentity(t)
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Keyring: k}
	if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{Recipients: []string{identity.Recipient().String()}}); err != nil {
		t.Fatal(err)
	}
	return cfg, k, identity
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name string
		// break damages a vault that has a keyring item and a recipient.
		spoil func(t *testing.T, cfg *vault.Config, k faulttest.Keyring)
		want  error
	}{
		{"no vault", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			cfg.Path = filepath.Join(vaulttest.Dir(t), "beehives.db")
		}, vault.ErrNoVault},
		{"database gone", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) { os.Remove(cfg.Path) }, vault.ErrMissing},
		{"empty", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) { write(t, cfg.Path, nil) }, vault.ErrDamaged},
		{"short", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			write(t, cfg.Path, read(t, cfg.Path)[:100])
		}, vault.ErrDamaged},
		{"noise", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			noise := make([]byte, 8192)
			rand.Read(noise)
			write(t, cfg.Path, noise)
		}, vault.ErrUnknownKeyID},
		{"noise behind the salt", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			data := read(t, cfg.Path)
			rand.Read(data[16:])
			write(t, cfg.Path, data)
		}, vault.ErrDamaged},
		{"an encrypted database that is no vault", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			v := vaulttest.Open(t, *cfg)
			err := v.Update(t.Context(), func(tx *vault.Tx) error {
				_, err := tx.ExecContext(t.Context(), `PRAGMA application_id = 7`)
				return err
			})
			if err := errors.Join(err, v.Close()); err != nil {
				t.Fatal(err)
			}
		}, vault.ErrDamaged},
		{"plaintext", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			os.Remove(cfg.Path)
			if out, err := exec.Command("sqlite3", cfg.Path, "create table t (x)").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			os.Chmod(cfg.Path, 0o600)
		}, vault.ErrPlaintext},
		{"another vault's database", func(t *testing.T, cfg *vault.Config, k faulttest.Keyring) {
			other, otherKeyring, _ := keyringVault(t)
			write(t, cfg.Path, read(t, other.Path))
			// Even if the keyring has its key, the slots file shows that it is another
			// database.
			_ = otherKeyring
		}, vault.ErrUnknownKeyID},
		{"item missing", func(t *testing.T, cfg *vault.Config, k faulttest.Keyring) { emptyKeyring(t, k, nil) }, vault.ErrWrongKey},
		{"item garbage", func(t *testing.T, cfg *vault.Config, k faulttest.Keyring) { emptyKeyring(t, k, []byte("garbage")) }, vault.ErrWrongKey},
		{"item of another vault", func(t *testing.T, cfg *vault.Config, k faulttest.Keyring) {
			_, other, _ := keyringVault(t)
			items, _ := os.ReadDir(other.Dir)
			emptyKeyring(t, k, read(t, filepath.Join(other.Dir, items[0].Name())))
		}, vault.ErrWrongKey},
		{"keyring unavailable", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			cfg.Keyring = keyring.New(keyring.Config{})
			t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
		}, keyring.ErrUnavailable},
		{"no source", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) { cfg.Keyring = nil }, vault.ErrNoUnlockMethod},
		{"wrong identity before a good keyring", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			cfg.Identities, cfg.ConfirmSigner = []age.Identity{newIdentity(t)}, vaulttest.AcceptSigner
		}, vault.ErrWrongKey},
		{"bad credential before a good keyring", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			cfg.CredentialsDir = vaulttest.Dir(t)
			write(t, filepath.Join(cfg.CredentialsDir, "rbee-vault"), []byte("garbage"))
		}, vault.ErrWrongKey},
		{"directory open to others", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) { os.Chmod(filepath.Dir(cfg.Path), 0o755) }, vault.ErrInsecure},
		{"database open to others", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) { os.Chmod(cfg.Path, 0o640) }, vault.ErrInsecure},
		{"slots file open to others", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) { os.Chmod(cfg.Path+".slots", 0o604) }, vault.ErrInsecure},
		{"question mark", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) { cfg.Path += "?x" }, vault.ErrInvalid},
		{"newer schema", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			v := vaulttest.Open(t, *cfg)
			err := v.Update(t.Context(), func(tx *vault.Tx) error {
				_, err := tx.ExecContext(t.Context(), `PRAGMA user_version = 99`)
				return err
			})
			if err := errors.Join(err, v.Close()); err != nil {
				t.Fatal(err)
			}
		}, vault.ErrNewer},
		{"slots file ahead of its table", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			file := read(t, cfg.Path+".slots")
			write(t, cfg.Path+".slots", bytes.Replace(file, []byte(`"slots_seq": 0`), []byte(`"slots_seq": 1`), 1))
		}, vault.ErrRollback},
		{"slots file of a later generation", func(t *testing.T, cfg *vault.Config, _ faulttest.Keyring) {
			file := read(t, cfg.Path+".slots")
			at := bytes.Index(file, []byte(`"key_id": "`)) + len(`"key_id": "`)
			file[at] = "10"[b2i(file[at] == '1')]
			write(t, cfg.Path+".slots", file)
		}, vault.ErrRollback},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg, k, _ := keyringVault(t)
			test.spoil(t, &cfg, k)
			before, _ := os.ReadFile(cfg.Path)
			slots, _ := os.ReadFile(cfg.Path + ".slots")
			v, err := vault.Open(t.Context(), cfg)
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if v != nil {
				v.Close()
			}
			after, _ := os.ReadFile(cfg.Path)
			slotsAfter, _ := os.ReadFile(cfg.Path + ".slots")
			if !bytes.Equal(before, after) || !bytes.Equal(slots, slotsAfter) {
				t.Error("a refused open changed a file")
			}
		})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// emptyKeyring gives every item another value, or removes it.
func emptyKeyring(t *testing.T, k faulttest.Keyring, value []byte) {
	t.Helper()
	items, err := os.ReadDir(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		path := filepath.Join(k.Dir, item.Name())
		if value == nil {
			os.Remove(path)
		} else {
			write(t, path, value)
		}
	}
}

func TestOpenHealsTheSlotsFile(t *testing.T) {
	cfg, _, identity := keyringVault(t)
	good := read(t, cfg.Path+".slots")
	other, _, _ := keyringVault(t)
	for _, spoiled := range []struct {
		name    string
		data    []byte
		foreign bool
	}{
		{"lost", nil, false},
		{"garbage", []byte("garbage"), true},
		{"empty", []byte{}, true},
		{"another vault's", read(t, other.Path+".slots"), true},
		{"reformatted", bytes.ReplaceAll(good, []byte("  "), nil), false},
	} {
		t.Run(spoiled.name, func(t *testing.T) {
			os.Remove(cfg.Path + ".slots")
			if spoiled.data != nil {
				write(t, cfg.Path+".slots", spoiled.data)
			}
			if spoiled.name != "reformatted" {
				byIdentity := cfg
				byIdentity.Identities, byIdentity.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
				if v, err := vault.Open(t.Context(), byIdentity); err == nil {
					v.Close()
					t.Error("an identity opened a vault without its slots")
				}
			}
			vaulttest.Open(t, cfg).Close()
			if !bytes.Equal(read(t, cfg.Path+".slots"), good) {
				t.Error("the slots file is not as it was")
			}
			foreign, _ := filepath.Glob(cfg.Path + ".slots.foreign-*")
			if (len(foreign) == 1) != spoiled.foreign {
				t.Errorf("set aside: %v", foreign)
			}
			for _, path := range foreign {
				if !bytes.Equal(read(t, path), spoiled.data) {
					t.Error("the file set aside is not what was there")
				}
				os.Remove(path)
			}
		})
	}
}

func TestAcceptRollback(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	file := bytes.Replace(read(t, cfg.Path+".slots"), []byte(`"slots_seq": 0`), []byte(`"slots_seq": 7`), 1)
	write(t, cfg.Path+".slots", file)
	if _, err := vault.Open(t.Context(), cfg); !errors.Is(err, vault.ErrRollback) {
		t.Fatalf("%v, want ErrRollback", err)
	}
	accepting := cfg
	accepting.AcceptRollback = true
	vaulttest.Open(t, accepting).Close()
	v := vaulttest.Open(t, cfg) // it stays open
	var action string
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		for r, err := range tx.AuditRows(t.Context(), 1) {
			if err != nil {
				return err
			}
			action = r.Action
		}
		return nil
	})
	if err != nil || action != "vault.accept-rollback" {
		t.Errorf("last audit row %q, %v", action, err)
	}
}

func TestOpenWays(t *testing.T) {
	cfg, _, identity := keyringVault(t)
	credentials := t.TempDir() // as systemd's, its mode is not checked
	write(t, filepath.Join(credentials, "rbee-vault"), []byte(identity.String()+"\n"))
	for _, way := range []struct {
		name string
		cfg  vault.Config
		want vault.Source
	}{
		{"keyring", cfg, vault.FromKeyring},
		{"credential", vault.Config{Path: cfg.Path, Keyring: cfg.Keyring, CredentialsDir: credentials, ConfirmSigner: vaulttest.AcceptSigner}, vault.FromCredential},
		{"no credential", vault.Config{Path: cfg.Path, Keyring: cfg.Keyring, CredentialsDir: t.TempDir()}, vault.FromKeyring},
		{"identity", vault.Config{Path: cfg.Path, Keyring: cfg.Keyring, CredentialsDir: credentials, Identities: []age.Identity{newIdentity(t), identity}, ConfirmSigner: vaulttest.AcceptSigner}, vault.FromIdentity},
	} {
		t.Run(way.name, func(t *testing.T) {
			v := vaulttest.Open(t, way.cfg)
			if v.Source() != way.want {
				t.Errorf("opened by %s, want %s", v.Source(), way.want)
			}
			if _, err := vault.Open(t.Context(), way.cfg); !errors.Is(err, vault.ErrAlreadyOpen) {
				t.Errorf("a second open: %v, want ErrAlreadyOpen", err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			if err := v.View(t.Context(), func(*vault.Tx) error { return nil }); !errors.Is(err, vault.ErrClosed) {
				t.Errorf("after Close: %v, want ErrClosed", err)
			}
		})
	}
	link := filepath.Join(vaulttest.Dir(t), "link.db")
	if err := os.Symlink(cfg.Path, link); err != nil {
		t.Fatal(err)
	}
	linked := cfg
	linked.Path = link
	if v := vaulttest.Open(t, linked); v.Path() != cfg.Path {
		t.Errorf("through a link: %s, want %s", v.Path(), cfg.Path)
	}
}

// TestKeyringLessVaultNeverCallsTheKeyring: a headless process must never wait for a keyring.
func TestKeyringLessVaultNeverCallsTheKeyring(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Keyring = forbidden{t}
	vaulttest.Open(t, cfg).Close()
	cfg.Identities = nil
	if _, err := vault.Open(t.Context(), cfg); !errors.Is(err, vault.ErrNoUnlockMethod) {
		t.Errorf("%v, want ErrNoUnlockMethod", err)
	}
}

// TestDamage damages every page of a vault in several ways. If the vault opens and reads after
// that, the results must be true, and CheckPages must find all of the damage.
func TestDamage(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	v := vaulttest.Open(t, cfg)
	ctx := t.Context()
	if err := v.Update(ctx, func(tx *vault.Tx) error { return addNode(ctx, tx, "hive-01") }); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	good := read(t, cfg.Path)
	const page = 4096
	check := func(name string, data []byte) {
		t.Helper()
		write(t, cfg.Path, data)
		v, err := vault.Open(ctx, cfg)
		if err == nil {
			var node string
			e := v.View(ctx, func(tx *vault.Tx) error {
				return tx.QueryRowContext(ctx, `SELECT node_name FROM beehives`).Scan(&node)
			})
			if e == nil && node != "hive-01" {
				t.Errorf("%s: read %q", name, node)
			}
			err = v.CheckPages(ctx)
			v.Close()
		}
		if !errors.Is(err, vault.ErrDamaged) && !errors.Is(err, vault.ErrUnknownKeyID) {
			t.Errorf("%s: %v, want ErrDamaged or ErrUnknownKeyID", name, err)
		}
		for _, side := range []string{"-wal", "-shm"} {
			os.Remove(cfg.Path + side)
		}
	}
	changed := func(change func(data []byte) []byte) []byte { return change(bytes.Clone(good)) }
	for at := 0; at < len(good); at += page {
		for _, within := range []int{0, 17, 2000, page - 70, page - 1} {
			check("flip", changed(func(d []byte) []byte { d[at+within] ^= 1; return d }))
		}
		check("zero", changed(func(d []byte) []byte { clear(d[at : at+page]); return d }))
		if at > 0 {
			check("cut", good[:at])
			check("cut within", good[:at+100])
			check("swap", changed(func(d []byte) []byte {
				p := bytes.Clone(d[at : at+page])
				copy(d[at:], d[at-page:at])
				copy(d[at-page:], p)
				return d
			}))
		}
	}
	check("appended", append(bytes.Clone(good), make([]byte, page)...))
	write(t, cfg.Path, good)
	vaulttest.Open(t, cfg)
}
