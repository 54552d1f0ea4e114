package backup_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func node(name string) registry.Node {
	return registry.Node{
		Name:        name,
		SSHHost:     name + ".example.org",
		SSHPort:     22,
		SSHUser:     "ops",
		GitRepoURL:  "https://example.org/rbee.git",
		GitBranch:   "main",
		InstallPath: "/opt/rbee",
		Status:      registry.StatusOnline,
		Backends:    []string{"cpu", "cuda"},
		Devices:     map[string]uint32{"cuda": 2},
	}
}

// newSSHKey makes an SSH key and its private half.
func newSSHKey(t testing.TB, nodes ...string) (registry.SSHKey, []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "ops@example.org")
	if err != nil {
		t.Fatal(err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return registry.SSHKey{
		Fingerprint: ssh.FingerprintSHA256(sshPublic),
		Type:        sshPublic.Type(),
		PublicKey:   strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPublic))),
		Comment:     "ops@example.org",
		Created:     time.UnixMilli(1767323045123).UTC(),
		Nodes:       nodes,
	}, pem.EncodeToMemory(block)
}

// fleet makes a vault with two nodes, a key that both use and a host key.
func fleet(t testing.TB) (vault.Config, *vault.Vault) {
	t.Helper()
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	r := registry.New(v)
	jumping := node("hive-01") // through a node that follows it in beehives.jsonl
	jumping.ProxyJump, jumping.Note, jumping.Labels = "hive-02", "behind the bastion", map[string]string{"rack": "3", "spare": ""}
	for _, n := range []registry.Node{node("hive-02"), jumping} {
		if err := r.CreateNode(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	key, private := newSSHKey(t, "hive-01", "hive-02")
	hostKey, _ := newSSHKey(t)
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		if err := registry.InsertSSHKey(t.Context(), tx, key, private); err != nil {
			return err
		}
		pin := registry.HostKey{Node: "hive-01", Type: hostKey.Type, PublicKey: hostKey.PublicKey, FirstSeen: key.Created, LastSeen: key.Created}
		if err := registry.InsertHostKeys(t.Context(), tx, pin); err != nil {
			return err
		}
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("host-key.trust"), Subject: "hive-01"})
	})
	if err == nil {
		_, err = r.BeginKeyRotation(t.Context(), "hive-02")
	}
	if err == nil {
		err = backup.AddTarget(t.Context(), v, backup.Target{Name: "bucket", URL: "s3://backups/fleet", Endpoint: "https://s3.example.org", AccessKey: "AKIDEXAMPLE", Secret: []byte("not-a-secret"), Retain: 30 * 24 * time.Hour})
	}
	if err == nil {
		err = r.SetSetting(t.Context(), registry.Setting{Name: registry.SettingSSHUser, Value: "ops"})
	}
	if err != nil {
		t.Fatal(err)
	}
	return cfg, v
}

// content is everything that a restore must bring back.
func content(t testing.TB, v *vault.Vault) (all struct {
	Nodes     []registry.Node
	SSHKeys   []registry.SSHKey
	PEMs      []string
	HostKeys  []registry.HostKey
	Rotations []registry.KeyRotation
	Targets   []backup.Target
	Settings  []registry.Setting
}) {
	t.Helper()
	ctx := t.Context()
	err := v.View(ctx, func(tx *vault.Tx) error {
		for n, err := range registry.EachNode(ctx, tx) {
			if err != nil {
				return err
			}
			all.Nodes = append(all.Nodes, n)
		}
		for k, err := range registry.EachSSHKey(ctx, tx) {
			if err != nil {
				return err
			}
			private, err := registry.PrivateKeyPEM(ctx, tx, k.Fingerprint)
			if err != nil {
				return err
			}
			all.SSHKeys, all.PEMs = append(all.SSHKeys, k), append(all.PEMs, string(private))
		}
		for k, err := range registry.EachHostKey(ctx, tx) {
			if err != nil {
				return err
			}
			all.HostKeys = append(all.HostKeys, k)
		}
		for k, err := range registry.EachKeyRotation(ctx, tx) {
			if err != nil {
				return err
			}
			all.Rotations = append(all.Rotations, k)
		}
		for target, err := range backup.EachTarget(ctx, tx) {
			if err != nil {
				return err
			}
			all.Targets = append(all.Targets, target)
		}
		for s, err := range registry.EachSetting(ctx, tx) {
			if err != nil {
				return err
			}
			all.Settings = append(all.Settings, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func create(t testing.TB, v *vault.Vault) ([]byte, backup.Created) {
	t.Helper()
	var b bytes.Buffer
	c, err := backup.Create(t.Context(), v, backup.CreateOptions{Writer: &b, Program: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), c
}

func trusting(cfg vault.Config, c backup.Created) backup.ReadOptions {
	return backup.ReadOptions{Identities: cfg.Identities, Trust: backup.TrustSigners(c.Signer)}
}

func elsewhere(t testing.TB, cfg vault.Config) vault.Config {
	cfg.Path = filepath.Join(vaulttest.Dir(t), "beehives.db")
	return cfg
}

func TestRoundTrip(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	if c.Sequence != 1 || c.Unchanged {
		t.Errorf("sequence %d, unchanged %t", c.Sequence, c.Unchanged)
	}
	second, c2 := create(t, v)
	if c2.Sequence != 2 || !c2.Unchanged {
		t.Errorf("the second: sequence %d, unchanged %t", c2.Sequence, c2.Unchanged)
	}
	for _, file := range [][]byte{file, second} {
		restored := elsewhere(t, cfg)
		done, err := backup.Restore(t.Context(), restored, bytes.NewReader(file), backup.RestoreOptions{ReadOptions: trusting(cfg, c)})
		if err != nil {
			t.Fatal(err)
		}
		r := vaulttest.Open(t, restored)
		if diff := cmp.Diff(content(t, v), content(t, r)); diff != "" {
			t.Error(diff)
		}
		if done.VaultID == c.Manifest.VaultID || done.Signer == c.Manifest.Signer {
			t.Error("the restored vault is not one of its own")
		}
		// Its backups begin at 1 and name the origin.
		again, c3 := create(t, r)
		if c3.Sequence != 1 || c3.Manifest.Origin == nil || c3.Manifest.Origin.VaultID != c.Manifest.VaultID {
			t.Errorf("the restored vault's backup: %+v", c3.Manifest)
		}
		if _, err := backup.Verify(t.Context(), bytes.NewReader(again), trusting(cfg, c3)); err != nil {
			t.Error(err)
		}
	}
	if all := content(t, v); len(all.PEMs) != 2 || len(all.Rotations) != 1 {
		t.Error("the fleet lacks a key or a rotation")
	}
}

// TestStockTools reads a backup with age, tar, sha256sum and ssh-keygen.
func TestStockTools(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	dir := t.TempDir()
	for name, data := range map[string]string{
		"backup.age":      string(file),
		"recovery.txt":    cfg.Identities[0].(*age.X25519Identity).String() + "\n",
		"allowed_signers": vault.AllowedSigner(c.Manifest.Signer) + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh", "-euc", `
		mkdir out; cd out
		age -d -i ../recovery.txt ../backup.age | tar xz
		sha256sum --strict -c SHA256SUMS
		ssh-keygen -Y verify -f ../allowed_signers -I rbee-vault -n rbee-vault-backup -s SHA256SUMS.sig <SHA256SUMS
		ssh-keygen -F hive-01.example.org -f known_hosts
		ssh-keygen -y -f ssh_keys/1.pem
		ls -1 | sort`)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{`Good "rbee-vault-backup" signature`, "known_hosts", content(t, v).SSHKeys[0].PublicKey} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}

// TestDamage flips bits of a backup, cuts it and lengthens it. Each must be refused and
// leave nothing behind.
func TestDamage(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	refused := func(name string, at int, data []byte) {
		t.Helper()
		if bytes.Equal(data, file) {
			return
		}
		_, err := backup.Verify(t.Context(), bytes.NewReader(data), trusting(cfg, c))
		if !errors.Is(err, backup.ErrDamaged) && !errors.Is(err, vault.ErrWrongKey) {
			t.Errorf("%s at %d: %v, want ErrDamaged or ErrWrongKey", name, at, err)
		}
	}
	for at := range file {
		flipped := bytes.Clone(file)
		flipped[at] ^= 0x01
		refused("flip", at, flipped)
		refused("cut", at, file[:at])
	}
	refused("append", 0, append(bytes.Clone(file), 0))
	refused("double", 0, append(bytes.Clone(file), file...))
	for _, data := range [][]byte{file[:len(file)/2], append(bytes.Clone(file), 0), {}} {
		target := elsewhere(t, cfg)
		if _, err := backup.Restore(t.Context(), target, bytes.NewReader(data), backup.RestoreOptions{ReadOptions: trusting(cfg, c)}); err == nil {
			t.Error("a damaged backup was restored")
		}
		left, _ := filepath.Glob(target.Path + "*")
		for _, path := range left {
			if !strings.HasSuffix(path, ".lock") && !strings.HasSuffix(path, ".write") && !strings.HasSuffix(path, ".turn") {
				t.Errorf("%s was left behind", path)
			}
		}
	}
}

// TestKeyOfManyNodes: a key has all of its nodes on one line, which may be a long one.
func TestKeyOfManyNodes(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	var nodes []registry.Node
	var names []string
	for i := range 16_000 {
		n := node("hive")
		n.Name = fmt.Sprintf("hive-%059d", i)
		nodes, names = append(nodes, n), append(names, n.Name)
	}
	key, private := newSSHKey(t, names...)
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		if err := registry.InsertNodes(t.Context(), tx, nodes...); err != nil {
			return err
		}
		if err := registry.InsertSSHKey(t.Context(), tx, key, private); err != nil {
			return err
		}
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("node.add")})
	})
	if err != nil {
		t.Fatal(err)
	}
	file, c := create(t, v)
	if _, err := backup.Verify(t.Context(), bytes.NewReader(file), trusting(cfg, c)); err != nil {
		t.Error(err)
	}
}

func TestUntrusted(t *testing.T) {
	cfg, v := fleet(t)
	file, _ := create(t, v)
	asked := 0
	opts := backup.ReadOptions{Identities: cfg.Identities, Trust: func(context.Context, backup.Claim) error {
		asked++
		return backup.ErrUntrusted
	}}
	target := elsewhere(t, cfg)
	if _, err := backup.Restore(t.Context(), target, bytes.NewReader(file), backup.RestoreOptions{ReadOptions: opts}); !errors.Is(err, backup.ErrUntrusted) {
		t.Errorf("%v, want ErrUntrusted", err)
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	if _, err := vault.Open(t.Context(), target); !errors.Is(err, vault.ErrNoVault) {
		t.Errorf("%v, want ErrNoVault", err)
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	opts.Identities = []age.Identity{stranger}
	if _, err := backup.Verify(t.Context(), bytes.NewReader(file), opts); !errors.Is(err, vault.ErrWrongKey) {
		t.Errorf("%v, want ErrWrongKey", err)
	}
}

// TestReadOptionsLeftOut: without an identity nothing can be read, and without Trust no
// signer is trusted.
func TestReadOptionsLeftOut(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	opts := trusting(cfg, c)
	opts.Identities = nil
	if _, err := backup.Verify(t.Context(), bytes.NewReader(file), opts); !errors.Is(err, vault.ErrNoUnlockMethod) || errors.Is(err, backup.ErrDamaged) {
		t.Errorf("no identity: %v, want ErrNoUnlockMethod", err)
	}
	opts = trusting(cfg, c)
	opts.Trust = nil
	if _, err := backup.Verify(t.Context(), bytes.NewReader(file), opts); !errors.Is(err, backup.ErrUntrusted) {
		t.Errorf("no trust: %v, want ErrUntrusted", err)
	}
}

func TestReplace(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	r := registry.New(v)
	if err := r.CreateNode(t.Context(), node("hive-03")); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	opts := backup.RestoreOptions{ReadOptions: trusting(cfg, c)}
	if _, err := backup.Restore(t.Context(), cfg, bytes.NewReader(file), opts); !errors.Is(err, vault.ErrExists) {
		t.Fatalf("%v, want ErrExists", err)
	}
	opts.Replace = true
	before, _ := os.ReadFile(cfg.Path)
	if _, err := backup.Restore(t.Context(), cfg, bytes.NewReader(file[:1000]), opts); err == nil {
		t.Fatal("a damaged backup replaced a vault")
	}
	if after, _ := os.ReadFile(cfg.Path); !bytes.Equal(before, after) {
		t.Error("a refused restore changed the vault in place")
	}
	done, err := backup.Restore(t.Context(), cfg, bytes.NewReader(file), opts)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(content(t, vaulttest.Open(t, cfg)).Nodes); got != 2 {
		t.Errorf("%d nodes restored, want 2", got)
	}
	aside := cfg
	aside.Path = done.Aside
	old := vaulttest.Open(t, aside)
	if got := len(content(t, old).Nodes); got != 3 {
		t.Errorf("%d nodes set aside, want 3", got)
	}
	if err := registry.New(old).CreateNode(t.Context(), node("hive-04")); !errors.Is(err, vault.ErrReadOnly) {
		t.Errorf("%v, want ErrReadOnly", err)
	}
}

// TestReplaceLeavesOut: a recipient that the replaced vault does not have must not come
// back with an old backup.
func TestReplaceLeavesOut(t *testing.T) {
	removed, kept := newIdentity(t), newIdentity(t)
	both := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Identities: []age.Identity{kept}}
	make := func(cfg vault.Config, recipients ...*age.X25519Identity) {
		t.Helper()
		var texts []string
		for _, r := range recipients {
			texts = append(texts, r.Recipient().String())
		}
		if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{Recipients: texts}); err != nil {
			t.Fatal(err)
		}
	}
	make(both, removed, kept)
	v := vaulttest.Open(t, both)
	file, c := create(t, v)

	only := elsewhere(t, both)
	make(only, kept)
	opts := backup.RestoreOptions{ReadOptions: trusting(both, c), Replace: true}
	done, err := backup.Restore(t.Context(), only, bytes.NewReader(file), opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(done.LeftOut) != 1 || done.LeftOut[0].Recipient != removed.Recipient().String() || len(done.Slots) != 1 {
		t.Errorf("left out %v, kept %v", done.LeftOut, done.Slots)
	}
	stranger := elsewhere(t, both)
	other := newIdentity(t)
	stranger.Identities = []age.Identity{other, kept}
	make(stranger, other)
	opts.ReadOptions.Identities = stranger.Identities
	if _, err := backup.Restore(t.Context(), stranger, bytes.NewReader(file), opts); !errors.Is(err, vault.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}

// TestReplaceUnread: a vault that cannot be opened is replaced only if the caller accepts
// that.
func TestReplaceUnread(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(cfg.Path)
	clear(data[100:4000])
	if err := os.WriteFile(cfg.Path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	opts := backup.RestoreOptions{ReadOptions: trusting(cfg, c), Replace: true}
	if _, err := backup.Restore(t.Context(), cfg, bytes.NewReader(file), opts); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("unasked: %v, want ErrDamaged", err)
	}
	opts.ConfirmUnproven = func(_ context.Context, in vault.UnprovenVault) error {
		if !errors.Is(in.Cause, vault.ErrDamaged) || len(in.Recipients) != 1 {
			t.Errorf("asked about %+v", in)
		}
		return nil
	}
	done, err := backup.Restore(t.Context(), cfg, bytes.NewReader(file), opts)
	if err != nil {
		t.Fatal(err)
	}
	if aside, _ := os.ReadFile(done.Aside); !bytes.Equal(aside, data) {
		t.Error("what was set aside is not what was there")
	}
	if got := len(content(t, vaulttest.Open(t, cfg)).Nodes); got != 2 {
		t.Errorf("%d nodes, want 2", got)
	}
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func TestFiles(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Now = func() time.Time { return time.UnixMilli(1767323045123) }
	v := vaulttest.Open(t, cfg)
	dir := filepath.Join(filepath.Dir(cfg.Path), "backups")
	taken := filepath.Join(dir, "beehives-20260102T030405Z-000001.tar.gz.age")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(taken, []byte("taken"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := backup.Create(t.Context(), v, backup.CreateOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "beehives-20260102T030405Z-000001-2.tar.gz.age"); c.Copies[0].Name != want {
		t.Errorf("path %s, want %s", c.Copies[0].Name, want)
	}
	if _, err := backup.Create(t.Context(), v, backup.CreateOptions{Path: taken}); !errors.Is(err, backup.ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	records, err := backup.List(t.Context(), v)
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	states := func() []backup.FileState {
		r := records[0]
		return []backup.FileState{r.State(r.Copies[0], false), r.State(r.Copies[0], true)}
	}
	if diff := cmp.Diff([]backup.FileState{backup.FilePresent, backup.FileIntact}, states()); diff != "" {
		t.Error(diff)
	}
	data, _ := os.ReadFile(c.Copies[0].Name)
	data[100] ^= 1
	os.WriteFile(c.Copies[0].Name, data, 0o600)
	if diff := cmp.Diff([]backup.FileState{backup.FilePresent, backup.FileChanged}, states()); diff != "" {
		t.Error(diff)
	}
	os.Remove(c.Copies[0].Name)
	if diff := cmp.Diff([]backup.FileState{backup.FileMissing, backup.FileMissing}, states()); diff != "" {
		t.Error(diff)
	}
	full := errors.New("disk is full")
	_, err = backup.Create(t.Context(), v, backup.CreateOptions{Writer: writerFunc(func([]byte) (int, error) { return 0, full })})
	if !errors.Is(err, full) {
		t.Errorf("%v, want the writer's error", err)
	}
	if records, _ = backup.List(t.Context(), v); len(records) != 2 || records[1].State(records[1].Copies[0], true) != backup.FileIncomplete {
		t.Errorf("records %+v", records)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
