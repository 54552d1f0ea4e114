package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/s3test"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// servers are the scripts' S3 servers, by their directories.
var servers sync.Map

func theS3(ts *testscript.TestScript) *s3test.Server {
	server, ok := servers.Load(ts.Getenv("WORK"))
	if !ok {
		ts.Fatalf("no S3 server was started")
	}
	return server.(*s3test.Server)
}

// s3Server is s3 start: starts an S3 server at $S3_URL with the bucket fleet, which locks, and
// the buckets plain, which keeps no versions, and defaults, which locks each object. The users root, writer, who may only write, and
// reader have the secrets in root.key, writer.key and reader.key. s3 hide KEY puts a delete
// marker over an object of fleet, s3 overwrite KEY another version.
func s3Server(ts *testscript.TestScript, neg bool, args []string) {
	t := ts.Value(theTest{}).(testing.TB)
	switch {
	case len(args) == 1 && args[0] == "start":
		server := s3test.Start(t)
		ts.Setenv("S3_URL", server.URL)
		ts.Setenv("S3_ROOT", server.Root.AccessKey)
		server.Bucket(t, "fleet", true)
		server.PlainBucket(t, "plain")
		server.Bucket(t, "defaults", true)
		server.LockByDefault(t, "defaults", 1)
		users := map[string]s3test.Credential{"root": server.Root, "writer": server.User(t, "writer"), "reader": server.User(t, "reader")}
		for name, c := range users {
			ts.Check(os.WriteFile(ts.MkAbs(name+".key"), []byte(c.Secret+"\n"), 0o600))
		}
		server.Allow(t, "fleet", map[string][]string{
			"writer": {"s3:PutObject", "s3:PutObjectRetention"},
			"reader": {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions"},
		})
		servers.Store(ts.Getenv("WORK"), server)
	case len(args) == 2 && args[0] == "hide":
		theS3(ts).Hide(t, "fleet", args[1])
	case len(args) == 2 && args[0] == "overwrite":
		theS3(ts).Overwrite(t, "fleet", args[1], "not a backup")
	default:
		ts.Fatalf("usage: s3 start | s3 hide KEY | s3 overwrite KEY")
	}
}

// TestBlankMachine: a machine is gone, with the vault and HOME. On a blank one the fleet
// comes back from the bucket: each row, each key, and the targets; and backups go on.
func TestBlankMachine(t *testing.T) {
	server := s3test.Start(t)
	server.Bucket(t, "fleet", true)
	writer, reader := server.User(t, "writer"), server.User(t, "reader")
	server.Allow(t, "fleet", map[string][]string{
		"writer": {"s3:PutObject", "s3:PutObjectRetention"},
		"reader": {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions"},
	})
	kept := t.TempDir() // what an operator keeps elsewhere: the recovery identity
	recovery, secret := filepath.Join(kept, "recovery.txt"), filepath.Join(kept, "writer.key")
	if err := os.WriteFile(secret, []byte(writer.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	home := blankHome(t)
	rbee := func(home string, args ...string) string {
		t.Helper()
		cmd := exec.Command("rbee-vault", append(args, "--no-input", "--identity", recovery)...)
		if args[0] == "init" {
			cmd = exec.Command("rbee-vault", args...)
		}
		cmd.Env = append(os.Environ(), "HOME="+home, "AWS_ACCESS_KEY_ID="+reader.AccessKey, "AWS_SECRET_ACCESS_KEY="+reader.Secret, "DBUS_SESSION_BUS_ADDRESS=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		if strings.Contains(string(out), planted) {
			t.Errorf("%s prints a secret", strings.Join(args, " "))
		}
		return string(out)
	}
	rbee(home, "init", "--no-input", "--no-keyring", "--recovery-out", recovery)
	fillFleet(t, filepath.Join(home, ".rbee", "beehives.db"), recovery)
	rbee(home, "backup", "target", "add", "usb", "dir:"+disk)
	rbee(home, "backup", "target", "add", "off", "s3://fleet/hive", "--endpoint", server.URL, "--access-key", writer.AccessKey, "--secret-file", secret, "--retain", "30d")
	rbee(home, "backup")
	before := rows(t, filepath.Join(home, ".rbee", "beehives.db"), recovery)
	if err := os.RemoveAll(home); err != nil {
		t.Fatal(err)
	}

	home = blankHome(t)
	signer := signerOf(t, recovery)
	rbee(home, "restore", "s3://fleet/hive", "--endpoint", server.URL, "--signer", signer, "--no-keyring")
	after := rows(t, filepath.Join(home, ".rbee", "beehives.db"), recovery)
	if len(before) != 1000+200+200+2 || !slices.Equal(before, after) {
		t.Errorf("%d rows before, %d after", len(before), len(after))
	}
	out := rbee(home, "backup")
	if !strings.Contains(out, "off/beehives-") || !strings.Contains(out, "usb/beehives-") {
		t.Error(out)
	}
	if found := len(server.Keys(t, "fleet")); found != 4 { // two backups and the probes of the check
		t.Errorf("%d objects", found)
	}
}

func blankHome(t *testing.T) string {
	t.Helper()
	home := filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return home
}

// openVault opens a vault in this process.
func openVault(t *testing.T, path, recovery string) *vault.Vault {
	t.Helper()
	f, err := os.Open(recovery)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	identities, err := identity.Parse(t.Context(), f, identity.Options{Name: "recovery"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.Context(), vault.Config{Path: path, Identities: identities, Keyring: keyring.New(keyring.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fillFleet stores 1,000 nodes, and a key for every fifth of them.
func fillFleet(t *testing.T, path, recovery string) {
	t.Helper()
	v := openVault(t, path, recovery)
	defer v.Close()
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		for i := range 1000 {
			n := registry.Node{Name: fmt.Sprintf("hive-%04d", i), SSHHost: fmt.Sprintf("planted-%d.example.org", i), SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/rbee.git", GitBranch: "main", InstallPath: "/opt/rbee", Labels: map[string]string{"rack": fmt.Sprint(i % 7)}}
			if err := registry.InsertNodes(t.Context(), tx, n); err != nil {
				return err
			}
		}
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("test"), Subject: "fleet"})
	})
	for i := 0; i < 1000 && err == nil; i += 5 {
		_, err = registry.New(v).GenerateSSHKey(t.Context(), "ed25519", "", fmt.Sprintf("hive-%04d", i))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rows returns every node, key, private key and target of a vault.
func rows(t *testing.T, path, recovery string) (all []string) {
	t.Helper()
	v := openVault(t, path, recovery)
	defer v.Close()
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		for n, err := range registry.EachNode(t.Context(), tx) {
			if err != nil {
				return err
			}
			all = append(all, fmt.Sprintf("%+v", n))
		}
		for k, err := range registry.EachSSHKey(t.Context(), tx) {
			if err != nil {
				return err
			}
			private, err := registry.PrivateKeyPEM(t.Context(), tx, k.Fingerprint)
			if err != nil {
				return err
			}
			all = append(all, fmt.Sprintf("%+v", k), string(private))
		}
		for target, err := range backup.EachTarget(t.Context(), tx) {
			if err != nil {
				return err
			}
			all = append(all, fmt.Sprintf("%+v", target))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// signerOf reads the signer's fingerprint in a recovery file.
func signerOf(t *testing.T, recovery string) string {
	t.Helper()
	data, err := os.ReadFile(recovery)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "# signer: ")
	if !ok {
		t.Fatal("the recovery file names no signer")
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
