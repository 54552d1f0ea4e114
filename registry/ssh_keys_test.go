package registry_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func keyNode(name string) registry.Node {
	return registry.Node{Name: name, SSHHost: "127.0.0.1", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt/r"}
}

// TestSigner logs into a real sshd with keys that never leave the vault.
func TestSigner(t *testing.T) {
	r := registry.New(vaulttest.New(t))
	ctx := t.Context()
	var authorized strings.Builder
	for _, kind := range []string{"ed25519", "rsa"} {
		if err := r.CreateNode(ctx, keyNode(kind)); err != nil {
			t.Fatal(err)
		}
		k, err := r.GenerateSSHKey(ctx, kind, "rbee@"+kind, kind)
		if err != nil {
			t.Fatal(err)
		}
		authorized.WriteString(k.PublicKey + "\n")
	}
	server := sshdtest.Start(t, authorized.String())
	host, err := os.ReadFile(server.PublicFiles[0])
	if err != nil {
		t.Fatal(err)
	}
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey(host)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ed25519", "rsa"} {
		signer, err := r.Signer(ctx, kind)
		if err != nil {
			t.Fatal(err)
		}
		client, err := ssh.Dial("tcp", server.Addr(), &ssh.ClientConfig{
			User:              server.User,
			Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
			HostKeyCallback:   ssh.FixedHostKey(hostKey),
			HostKeyAlgorithms: []string{hostKey.Type()},
		})
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := session.Output("echo hello"); err != nil || string(out) != "hello\n" {
			t.Errorf("%s: %q, %v", kind, out, err)
		}
		client.Close()
		k, err := r.NodeSSHKey(ctx, kind)
		if err != nil || k.Used.IsZero() {
			t.Errorf("%s: used %v, %v", kind, k.Used, err)
		}
		if err := r.RemoveSSHKey(ctx, k.Fingerprint, true); err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Sign(nil, []byte("x")); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: a removed key still signs: %v", kind, err)
		}
		if _, err := r.Signer(ctx, kind); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", kind, err)
		}
	}
}

// TestExportIsAuditedFirst: where the audit row cannot be written, no key is returned.
func TestExportIsAuditedFirst(t *testing.T) {
	cfg := vaulttest.Config(t)
	r := registry.New(vaulttest.Open(t, cfg))
	k, err := r.GenerateSSHKey(t.Context(), "ed25519", "")
	if err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if private, err := r.ExportSSHKey(canceled, k.Fingerprint, "x"); err == nil || private != nil {
		t.Errorf("%d bytes, %v", len(private), err)
	}
	private, err := r.ExportSSHKey(t.Context(), k.Fingerprint, "to a test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ssh.ParsePrivateKey(private); err != nil {
		t.Error(err)
	}
	var last vault.AuditRow
	err = r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		// The table has no private key in clear.
		var sealed []byte
		if err := tx.QueryRowContext(t.Context(), `SELECT private_key FROM ssh_keys`).Scan(&sealed); err != nil {
			return err
		}
		if bytes.Contains(sealed, []byte("PRIVATE KEY")) || bytes.Contains(sealed, private[60:80]) {
			t.Error("the column holds the key in clear")
		}
		for row, err := range tx.AuditRows(t.Context(), 1) {
			if err != nil {
				return err
			}
			last = row
		}
		return nil
	})
	if err != nil || last.Action != "ssh-key.export" || last.Subject != k.Fingerprint || last.Detail != "to a test" {
		t.Errorf("%+v, %v", last, err)
	}
	if _, err := r.ExportSSHKey(t.Context(), "SHA256:none", ""); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

// TestPrivateKeysOfSSHKeygen: a key of any kind that ssh-keygen writes is exported so that
// ssh-keygen reads it, with the same public half.
func TestPrivateKeysOfSSHKeygen(t *testing.T) {
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"ed25519":        {"-t", "ed25519"},
		"ecdsa-256":      {"-t", "ecdsa", "-b", "256"},
		"ecdsa-384":      {"-t", "ecdsa", "-b", "384"},
		"ecdsa-521":      {"-t", "ecdsa", "-b", "521"},
		"rsa":            {"-t", "rsa", "-b", "3072"},
		"rsa-pem":        {"-t", "rsa", "-b", "3072", "-m", "PEM"},
		"rsa-pkcs8":      {"-t", "rsa", "-b", "3072", "-m", "PKCS8"},
		"ecdsa-pem":      {"-t", "ecdsa", "-m", "PEM"},
		"ecdsa-pkcs8":    {"-t", "ecdsa", "-m", "PKCS8"},
		"locked":         {"-t", "ed25519", "-N", "secret"},
		"locked rsa-pem": {"-t", "rsa", "-b", "3072", "-m", "PEM", "-N", "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			locked := strings.HasPrefix(name, "locked")
			if !locked {
				args = append(args, "-N", "")
			}
			if out, err := exec.Command("ssh-keygen", append(args, "-q", "-C", "ops@desk", "-f", file)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			opts := registry.PrivateKeyOptions{Passphrase: func(context.Context, string, int) ([]byte, error) { return []byte("secret"), nil }}
			k, err := registry.ParsePrivateKey(t.Context(), data, opts)
			if err != nil {
				t.Fatal(err)
			}
			r := registry.New(vaulttest.New(t))
			added, err := r.AddSSHKey(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			if openssh := bytes.Contains(data, []byte("BEGIN OPENSSH")); openssh && !locked && added.Comment != "ops@desk" {
				t.Errorf("comment %q", added.Comment)
			}
			private, err := r.ExportSSHKey(t.Context(), added.Fingerprint, "")
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(data, []byte("BEGIN OPENSSH")) && !locked && !bytes.Equal(private, data) {
				t.Error("an OpenSSH key was not kept as it was")
			}
			again := file + ".out"
			if err := os.WriteFile(again, private, 0o600); err != nil {
				t.Fatal(err)
			}
			public, err := exec.Command("ssh-keygen", "-y", "-f", again).Output()
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(file + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			if a, b := strings.Fields(string(public)), strings.Fields(string(want)); a[0] != b[0] || a[1] != b[1] || added.PublicKey != a[0]+" "+a[1] {
				t.Errorf("%s became %s", want, public)
			}
			if locked {
				for _, ask := range []identity.PassphraseFunc{nil, func(context.Context, string, int) ([]byte, error) { return []byte("wrong"), nil }} {
					if _, err := registry.ParsePrivateKey(t.Context(), data, registry.PrivateKeyOptions{Passphrase: ask}); !errors.Is(err, vault.ErrWrongKey) && !errors.Is(err, vault.ErrNoUnlockMethod) {
						t.Errorf("%v", err)
					}
				}
			}
		})
	}
}

// TestRemoveSSHKeyInUse: a key that a node uses is removed only with unassign.
func TestRemoveSSHKeyInUse(t *testing.T) {
	r := registry.New(vaulttest.New(t))
	n := registry.Node{Name: "hive-01", SSHHost: "h", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
	if err := r.CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	key, err := r.GenerateSSHKey(t.Context(), "ed25519", "", "hive-01")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveSSHKey(t.Context(), key.Fingerprint, false); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("in use: %v", err)
	}
	if found, err := r.NodeSSHKey(t.Context(), "hive-01"); err != nil || found.Fingerprint != key.Fingerprint {
		t.Errorf("it is %q, %v", found.Fingerprint, err)
	}
	if err := r.RemoveSSHKey(t.Context(), key.Fingerprint, true); err != nil {
		t.Error(err)
	}
	if _, err := r.NodeSSHKey(t.Context(), "hive-01"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("after its removal: %v", err)
	}
}
