package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// rotationFleet is a vault with nodes, each on an sshd of its own.
type rotationFleet struct {
	*testing.T
	env      []string
	db       string
	recovery string
}

func newRotationFleet(t *testing.T) rotationFleet {
	t.Helper()
	env, recovery := keylessVault(t)
	return rotationFleet{t, append(env, "RBEE_VAULT_IDENTITY_FILE="+recovery, "SSH_AUTH_SOCK="),
		filepath.Join(filepath.Dir(recovery), ".rbee", "beehives.db"), recovery}
}

// expect runs the command.
func (f rotationFleet) expect(want int, message string, args ...string) string {
	f.Helper()
	code, stdout, stderr := command(f.T, f.env, args...)
	if code != want || !strings.Contains(stdout+stderr, message) {
		f.Fatalf("%v: exit code %d, want %d with %q:\n%s%s", args, code, want, message, stdout, stderr)
	}
	return stdout + stderr
}

// authorizedBy starts an sshd that reads the authorized_keys of a home of its own.
func (f rotationFleet) authorizedBy(options ...string) (server sshdtest.Server, authorized string) {
	f.Helper()
	home := f.TempDir()
	authorized = filepath.Join(home, ".ssh", "authorized_keys")
	if err := errors.Join(os.Mkdir(filepath.Dir(authorized), 0o700), os.WriteFile(authorized, nil, 0o600)); err != nil {
		f.Fatal(err)
	}
	return sshdtest.Start(f.T, "", append(options, "AuthorizedKeysFile "+authorized, "SetEnv HOME="+home)...), authorized
}

// add adds a node that uses a key, which its server accepts with options.
func (f rotationFleet) add(name, key, options string, server sshdtest.Server, authorized string) {
	f.Helper()
	f.expect(exitOK, "", "node", "add", name, "--ssh-host", server.Host, "--ssh-port", server.Port, "--ssh-user", server.User,
		"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee", "--use-key", key)
	f.expect(exitOK, "", "host-key", "trust", name, "--fingerprint", fingerprintOf(f.T, server.PublicFiles[0]))
	f.write(authorized, strings.TrimSpace(options+" "+f.expect(exitOK, "", "ssh-key", "show", key))+"\n")
}

func (f rotationFleet) write(path, text string) {
	f.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
}

func (f rotationFleet) read(path string) string {
	f.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return string(data)
}

// with opens the vault in this process.
func (f rotationFleet) with(db string, fn func(ctx context.Context, r *registry.Registry)) {
	f.Helper()
	identities, err := identity.Parse(f.Context(), strings.NewReader(f.read(f.recovery)), identity.Options{})
	if err != nil {
		f.Fatal(err)
	}
	r, err := registry.Open(f.Context(), vault.Config{Path: db, Identities: identities})
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	fn(f.Context(), r)
}

// rotated checks that a node accepts exactly its key of the vault, which is not one of the
// keys before, and returns the key.
func (f rotationFleet) rotated(db, node, authorized, options string, before ...string) (fingerprint string) {
	f.Helper()
	f.with(db, func(ctx context.Context, r *registry.Registry) {
		key, err := r.NodeSSHKey(ctx, node)
		if err != nil {
			f.Fatal(err)
		}
		for _, old := range before {
			if key.Fingerprint == old {
				f.Errorf("%s still uses %s", node, old)
			}
		}
		if want := strings.TrimSpace(options+" "+key.PublicKey+" "+commentOf(key)) + "\n"; f.read(authorized) != want {
			f.Errorf("authorized_keys of %s:\n%s\nwant:\n%s", node, f.read(authorized), want)
		}
		f.reachable(ctx, r, node)
		list, err := r.ListKeyRotations(ctx)
		for _, k := range list {
			if k.Node == node {
				f.Errorf("%s is still at the step %s", node, k.Step)
			}
		}
		if err != nil {
			f.Error(err)
		}
		fingerprint = key.Fingerprint
	})
	return fingerprint
}

// reachable checks that the node accepts the key that the vault has for it.
func (f rotationFleet) reachable(ctx context.Context, r *registry.Registry, node string) {
	f.Helper()
	d := &hive.Dialer{Registry: r}
	if result, err := d.Probe(ctx, node); err != nil || result.Err != nil {
		f.Errorf("%s is not reachable by its key in the vault: %v %v", node, err, result.Err)
	}
}

func (f rotationFleet) backups() []string {
	f.Helper()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(f.db), "backups", "*.age"))
	if err != nil {
		f.Fatal(err)
	}
	return files
}

// restore makes a vault from a backup, and returns its database.
func (f rotationFleet) restore(file string) string {
	f.Helper()
	db := filepath.Join(f.TempDir(), "v.db")
	var signer string
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		err := r.Vault().View(ctx, func(tx *vault.Tx) error {
			meta, err := tx.Meta(ctx)
			signer = vault.Fingerprint(meta.Signer)
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
	})
	if err := os.Chmod(filepath.Dir(db), 0o700); err != nil {
		f.Fatal(err)
	}
	f.expect(exitOK, "", "restore", file, "--db", db, "--no-keyring", "--signer", signer)
	return db
}

// TestSSHKeyRotate replaces keys on real sshds.
func TestSSHKeyRotate(t *testing.T) {
	f := newRotationFleet(t)
	f.expect(exitOK, "No node uses a key", "ssh-key", "rotate", "--all")
	f.expect(exitUsage, "--parallel", "ssh-key", "rotate", "--all", "--parallel", "0")
	f.expect(exitOK, "", "ssh-key", "generate", "--comment", "fleet")
	f.expect(exitOK, "", "ssh-key", "generate", "--comment", "lonely")
	const options = `no-pty,from="127.0.0.1,::1",environment="A=b c"`
	server1, keys1 := f.authorizedBy()
	server2, keys2 := f.authorizedBy()
	f.add("hive-01", "fleet", options, server1, keys1)
	f.add("hive-02", "fleet", "", server2, keys2)
	f.add("hive-03", "lonely", "", server2, filepath.Join(t.TempDir(), "nowhere"))
	f.expect(exitOK, "", "node", "update", "hive-03", "--ssh-port", "1")
	f.expect(exitOK, "", "node", "add", "keyless", "--ssh-host", server1.Host, "--ssh-port", server1.Port, "--ssh-user", server1.User,
		"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee")
	before1 := f.read(keys1)

	for _, args := range [][]string{{}, {"--all", "hive-01"}, {"--all", "--where", "status=online"}} {
		f.expect(exitUsage, "", append([]string{"ssh-key", "rotate"}, args...)...)
	}
	f.expect(exitNotFound, "", "ssh-key", "rotate", "nobody")
	if out := f.expect(exitOK, "would be replaced; it stays in use by hive-02\n", "ssh-key", "rotate", "hive-01", "--dry-run"); strings.Contains(out, "hive-03") {
		t.Error(out)
	}
	if out := f.expect(exitOK, `"step":null,"others":[]`, "ssh-key", "rotate", "--all", "--dry-run", "--json"); strings.Count(out, "\n") != 3 {
		t.Error(out)
	}
	f.expect(exitPartial, "uses no key in the vault", "ssh-key", "rotate", "keyless", "--dry-run")
	f.expect(exitPartial, "ssh-key generate --node keyless", "ssh-key", "rotate", "keyless")
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		if list, err := r.ListKeyRotations(ctx); err != nil || len(list) != 0 || f.read(keys1) != before1 || len(f.backups()) != 0 {
			t.Errorf("a dry run did something: %v, %v", list, err)
		}
	})

	// One node of two that share a key.
	f.expect(exitOK, "it is still in use by hive-02", "ssh-key", "rotate", "hive-01")
	first := f.rotated(f.db, "hive-01", keys1, options)
	if len(f.backups()) != 1 {
		t.Errorf("backups: %v", f.backups())
	}
	f.expect(exitOK, "fleet\n", "ssh-key", "show", "fleet")

	// All of them, under one backup. A node that cannot be reached keeps its key.
	out := f.expect(exitPartial, "1 of 3 nodes", "ssh-key", "rotate", "--all")
	if !strings.Contains(out, "hive-03: ") || !strings.Contains(out, "It still uses its old key") {
		t.Error(out)
	}
	first = f.rotated(f.db, "hive-01", keys1, options, first)
	f.rotated(f.db, "hive-02", keys2, "")
	if len(f.backups()) != 2 {
		t.Errorf("backups: %v", f.backups())
	}
	f.expect(exitOK, `"nodes":["hive-03"]`, "ssh-key", "list", "--json")
	f.expect(exitOK, "would go on: the node would be given", "ssh-key", "rotate", "hive-03", "--dry-run")
	f.expect(exitPartial, `"step":"pending"`, "ssh-key", "rotate", "hive-03", "--json")

	f.expect(exitOK, `"step":null,"error":null`, "ssh-key", "rotate", "hive-01", "--no-backup", "--json")
	f.rotated(f.db, "hive-01", keys1, options, first)
	if len(f.backups()) != 2 {
		t.Errorf("backups: %v", f.backups())
	}
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		keys, err := r.ListSSHKeys(ctx)
		if err != nil || len(keys) != 4 { // one each, and the new one of hive-03
			t.Errorf("%d keys, %v", len(keys), err)
		}
	})
	// The backup cannot be made.
	if err := os.Chmod(filepath.Dir(f.backups()[0]), 0o755); err != nil {
		t.Fatal(err)
	}
	old := f.read(keys1)
	f.expect(exitError, "before an old one is removed", "ssh-key", "rotate", "hive-01")
	if !strings.Contains(f.read(keys1), old) {
		t.Error("the old key is gone without a backup")
	}
	f.expect(exitOK, "the old key", "ssh-key", "rotate", "hive-01", "--dry-run")
	f.expect(exitOK, "accepts its new key only", "ssh-key", "rotate", "hive-01", "--no-backup")
	f.rotated(f.db, "hive-01", keys1, options)
}

// TestSSHKeyRotateOddNodes: an old key that a node goes on accepting stays in the vault.
func TestSSHKeyRotateOddNodes(t *testing.T) {
	f := newRotationFleet(t)
	for _, key := range []string{"same", "back", "other"} {
		f.expect(exitOK, "", "ssh-key", "generate", "--comment", key)
	}
	// Two names of one account.
	server, keys := f.authorizedBy()
	f.add("same-1", "same", "", server, keys)
	f.add("same-2", "same", "", server, keys)
	old := strings.Fields(f.read(keys))[1]
	f.expect(exitOK, "", "host-key", "forget", "same-2", "--yes") // so that it cannot be asked
	f.expect(exitPartial, "rotate same-1 same-2", "ssh-key", "rotate", "same-1")
	f.expect(exitOK, "", "host-key", "trust", "same-2", "--fingerprint", fingerprintOf(t, server.PublicFiles[0]))
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		f.reachable(ctx, r, "same-1")
		f.reachable(ctx, r, "same-2")
	})
	f.expect(exitOK, "", "ssh-key", "rotate", "same-1", "same-2")
	if lines := f.read(keys); strings.Count(lines, "\n") != 2 || strings.Contains(lines, old) {
		t.Errorf("authorized_keys:\n%s", lines)
	}

	// Two nodes with one home directory.
	f.expect(exitOK, "", "ssh-key", "generate", "--comment", "home")
	server, keys = f.authorizedBy()
	f.add("home-1", "home", "", server, keys)
	second := sshdtest.Start(t, "", "AuthorizedKeysFile "+keys, "SetEnv HOME="+filepath.Dir(filepath.Dir(keys)))
	f.add("home-2", "home", "", second, keys)
	f.expect(exitPartial, "rotate home-1 home-2", "ssh-key", "rotate", "home-1")
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		f.reachable(ctx, r, "home-1")
		f.reachable(ctx, r, "home-2")
	})
	f.expect(exitOK, "", "ssh-key", "rotate", "home-1", "home-2")
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		f.reachable(ctx, r, "home-1")
		f.reachable(ctx, r, "home-2")
	})

	// Something that writes the file anew at each login.
	script := filepath.Join(t.TempDir(), "login")
	flag := filepath.Join(filepath.Dir(script), "managed")
	server, keys = f.authorizedBy("ForceCommand sh " + script)
	f.add("back", "back", "", server, keys)
	f.write(flag, f.read(keys))
	f.write(script, "[ ! -e "+flag+" ] || cat "+flag+" >>"+keys+"\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n")
	f.expect(exitPartial, errOldKeyBack.Error(), "ssh-key", "rotate", "back")
	f.expect(exitOK, "back\n", "ssh-key", "show", strings.Fields(f.expect(exitOK, "would be removed", "ssh-key", "rotate", "back", "--dry-run"))[9])
	if err := os.Remove(flag); err != nil {
		t.Fatal(err)
	}
	f.expect(exitOK, "", "ssh-key", "rotate", "back")
	f.rotated(f.db, "back", keys, "")

	// A server that reads another file too, and first has no line to take options from.
	other := filepath.Join(t.TempDir(), "keys")
	server, _ = f.authorizedBy("AuthorizedKeysFile .none " + other)
	f.add("other", "other", "", server, other)
	f.expect(exitPartial, "does not hold the old key", "ssh-key", "rotate", "other")
	var new registry.SSHKey
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		list, err := r.ListKeyRotations(ctx)
		if err == nil {
			new, err = r.SSHKey(ctx, list[0].New)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	f.write(other, f.read(other)+new.PublicKey+"\n")
	f.expect(exitPartial, errOldKeyAccepted.Error(), "ssh-key", "rotate", "other")
	f.write(other, new.PublicKey+"\n")
	f.expect(exitOK, "", "ssh-key", "rotate", "other")
	f.expect(exitOK, `"ssh-key.remove"`, "audit", "list", "--json")
}

var errFault = errors.New("fault")

// answers is a node that answers as it is told, and a vault that records what was done.
type answers struct {
	step                 registry.RotationStep
	authorized, new, old error // of authorize, and of logins by the two keys
	done                 []string
}

func (a *answers) did(what string) { a.done = append(a.done, what) }

func (a *answers) BeginKeyRotation(_ context.Context, node string) (registry.KeyRotation, error) {
	return registry.KeyRotation{Node: node, Old: "old", New: "new", Step: a.step}, nil
}

func (a *answers) SwitchKeyRotation(context.Context, string) error {
	a.did("switch")
	return nil
}

func (a *answers) SaveKeyRotations(context.Context, ...string) error {
	a.did("save")
	return nil
}

func (a *answers) EndKeyRotation(context.Context, string) ([]string, error) {
	a.did("end")
	return nil, nil
}

func (a *answers) authorize(context.Context, registry.KeyRotation) error {
	a.did("authorize")
	return a.authorized
}

func (a *answers) login(_ context.Context, _, fingerprint string) error {
	a.did("login " + fingerprint)
	if fingerprint == "old" {
		return a.old
	}
	return a.new
}

func (a *answers) deauthorize(context.Context, registry.KeyRotation) (bool, error) {
	a.did("deauthorize")
	return false, nil
}

// TestSSHKeyRotateAnswers: the vault switches to a key that was proved, and drops one that
// the node itself refused. Nothing else is taken for either.
func TestSSHKeyRotateAnswers(t *testing.T) {
	at := func(node string, err error) error { return &hive.Error{Node: node, Err: err} }
	refused, down := at("hive-01", hive.ErrPermission), at("hive-01", hive.ErrUnreachable)
	const proof, removal = "authorize login new", "deauthorize deauthorize login old"
	for name, row := range map[string]struct {
		answers
		want string
		ok   bool
	}{
		"all well":                {answers{step: registry.RotationPending, old: refused}, proof + " switch backup save " + removal + " end", true},
		"switched":                {answers{step: registry.RotationSwitched, old: refused}, "backup save " + removal + " end", true},
		"saved":                   {answers{step: registry.RotationSaved, old: refused}, removal + " end", true},
		"down":                    {answers{step: registry.RotationPending, authorized: down}, "authorize", false},
		"not proved":              {answers{step: registry.RotationPending, new: refused}, proof, false},
		"added by hand":           {answers{step: registry.RotationPending, authorized: hive.ErrNotAuthorized, old: refused}, proof + " switch backup save " + removal + " end", true},
		"old one is gone":         {answers{step: registry.RotationPending, authorized: refused, old: refused}, proof + " switch backup save " + removal + " end", true},
		"unknown whether added":   {answers{step: registry.RotationPending, authorized: hive.ErrUnknownOutcome, new: refused}, proof, false},
		"old one accepted":        {answers{step: registry.RotationSaved}, removal, false},
		"old one cannot be tried": {answers{step: registry.RotationSaved, old: down}, removal, false},
		"a jump refused it":       {answers{step: registry.RotationSaved, old: at("jump", hive.ErrPermission)}, removal, false},
	} {
		a := row.answers
		k := keyRotator{store: &a, hosts: &a, parallel: 1,
			backup: func(context.Context) error { a.did("backup"); return nil },
			report: func(registry.KeyRotation, error) error { return nil }}
		failed, err := k.run(t.Context(), []string{"hive-01"})
		if got := strings.Join(a.done, " "); err != nil || (failed == 0) != row.ok || got != row.want {
			t.Errorf("%s: %d failed, %v, did %s, want %s", name, failed, err, got, row.want)
		}
	}
	// Without a backup the old key stays on the node.
	a := answers{step: registry.RotationSwitched, old: refused}
	k := keyRotator{store: &a, hosts: &a, parallel: 1, backup: func(context.Context) error { return errFault }}
	if _, err := k.run(t.Context(), []string{"hive-01"}); !errors.Is(err, errFault) || len(a.done) != 0 {
		t.Errorf("%v, did %v", err, a.done)
	}
}
