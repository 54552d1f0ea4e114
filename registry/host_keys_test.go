package registry_test

import (
	"crypto/ed25519"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// hostKey is a key that depends on seed.
func hostKey(t testing.TB, seed byte) ssh.PublicKey {
	t.Helper()
	private := ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	key, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTrustHostKey(t *testing.T) {
	r := registry.New(vaulttest.New(t))
	ctx := t.Context()
	if err := r.CreateNode(ctx, keyNode("hive-01")); err != nil {
		t.Fatal(err)
	}
	first, second := hostKey(t, 1), hostKey(t, 2)
	for _, want := range []bool{true, false} {
		if added, err := r.TrustHostKey(ctx, "hive-01", first); err != nil || added != want {
			t.Errorf("added %t, %v", added, err)
		}
	}
	for _, replaces := range [][]string{nil, {ssh.FingerprintSHA256(second)}} {
		if _, err := r.TrustHostKey(ctx, "hive-01", second, replaces...); !errors.Is(err, registry.ErrHostKeyChanged) || !strings.Contains(err.Error(), ssh.FingerprintSHA256(first)) {
			t.Errorf("%v, want ErrHostKeyChanged that names the old one", err)
		}
	}
	keys, err := r.ListHostKeys(ctx)
	if err != nil || len(keys) != 1 || vault.Fingerprint(keys[0].PublicKey) != ssh.FingerprintSHA256(first) {
		t.Fatalf("%+v, %v", keys, err)
	}
	if added, err := r.TrustHostKey(ctx, "hive-01", second, ssh.FingerprintSHA256(first)); err != nil || !added {
		t.Errorf("added %t, %v", added, err)
	}
	if keys, err := r.ListHostKeys(ctx, "hive-01"); err != nil || len(keys) != 1 || vault.Fingerprint(keys[0].PublicKey) != ssh.FingerprintSHA256(second) {
		t.Errorf("%+v, %v", keys, err)
	}
	if _, err := r.TrustHostKey(ctx, "nobody", first); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	if _, err := r.ListHostKeys(ctx, "nobody"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	if _, err := r.ForgetHostKeys(ctx, ssh.FingerprintSHA256(first), "hive-01"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	if n, err := r.ForgetHostKeys(ctx, "", "hive-01"); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}

// TestReadKnownHosts reads what ssh-keygen has hashed, ports, revoked keys and
// certificate authorities; and what WriteKnownHosts writes, ssh-keygen finds.
func TestReadKnownHosts(t *testing.T) {
	line := func(seed byte) string {
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(hostKey(t, seed))))
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	content := strings.Join([]string{
		"# comment",
		"plain.example.org " + line(1),
		"[port.example.org]:2222 " + line(2),
		"port.example.org " + line(3),
		"hashed.example.org " + line(4),
		"revoked.example.org " + line(5),
		"@revoked * " + line(5),
		"@cert-authority *.example.org " + line(6),
		"two.example.org " + line(7),
		"two.example.org " + line(8),
		"plain.example.org " + line(1),
		"",
	}, "\n")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ssh-keygen", "-H", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen -H: %v: %s", err, out)
	}
	r := registry.New(vaulttest.New(t))
	var nodes []registry.Node
	for name, port := range map[string]uint16{"plain": 22, "port": 2222, "hashed": 22, "revoked": 22, "two": 22} {
		n := keyNode(name)
		n.SSHHost, n.SSHPort = name+".example.org", port
		nodes = append(nodes, n)
		if err := r.CreateNode(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	known, err := registry.ReadKnownHosts(file, nodes)
	if err != nil {
		t.Fatal(err)
	}
	for name, seed := range map[string]byte{"plain": 1, "port": 2, "hashed": 4} {
		if keys := known.Keys[name]; len(keys) != 1 || ssh.FingerprintSHA256(keys[0]) != ssh.FingerprintSHA256(hostKey(t, seed)) {
			t.Errorf("%s: %v", name, keys)
		}
	}
	if len(known.Keys["revoked"]) != 0 || len(known.Keys) != 3 {
		t.Errorf("%v", known.Keys)
	}
	reasons := ""
	for _, p := range known.Skipped {
		reasons += p.Row + ": " + p.Reason + "\n"
	}
	if !strings.Contains(reasons, "revokes") || !strings.Contains(reasons, "certificate authority") || !strings.Contains(reasons, "two: the file has 2 keys of type ssh-ed25519") {
		t.Errorf("skipped:\n%s", reasons)
	}
	if n, err := r.TrustHostKeys(t.Context(), known.Keys); err != nil || n != 3 {
		t.Fatalf("%d, %v", n, err)
	}
	var written strings.Builder
	err = r.Vault().View(t.Context(), func(tx *vault.Tx) error { return registry.WriteKnownHosts(t.Context(), tx, &written) })
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(out, []byte(written.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"plain.example.org", "[port.example.org]:2222", "hashed.example.org"} {
		if found, err := exec.Command("ssh-keygen", "-F", host, "-f", out).Output(); err != nil || !strings.Contains(string(found), "ssh-ed25519") {
			t.Errorf("ssh-keygen does not find %s: %v\n%s", host, err, written.String())
		}
	}
	if _, err := registry.ReadKnownHosts(filepath.Join(t.TempDir(), "none"), nodes); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	go os.WriteFile(pipe, []byte(content), 0)
	if known, err := registry.ReadKnownHosts(pipe, nodes); err != nil || len(known.Keys) != 3 {
		t.Errorf("by a pipe: %v, %v", known.Keys, err)
	}
	if err := os.WriteFile(file, []byte("host nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.ReadKnownHosts(file, nodes); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid", err)
	}
}

func FuzzReadKnownHosts(f *testing.F) {
	f.Add("plain.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW\n")
	f.Add("@revoked * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW\n")
	f.Add("|1|a|b ssh-ed25519 AAAA\n\n#\n@cert-authority\n")
	n := keyNode("plain")
	n.SSHHost = "plain.example.org"
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "known_hosts")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		known, err := registry.ReadKnownHosts(file, []registry.Node{n})
		if err != nil && (known.Keys != nil || known.Skipped != nil) {
			t.Errorf("%v, %v", known, err)
		}
	})
}
