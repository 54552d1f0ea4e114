package registry_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// hostKey returns a key that depends on seed only.
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
	if gone, err := r.ForgetHostKeys(ctx, "", "hive-01"); err != nil || len(gone) != 1 || vault.Fingerprint(gone[0].PublicKey) != ssh.FingerprintSHA256(second) {
		t.Errorf("%+v, %v", gone, err)
	}
}

// TestReadKnownHosts reads names that ssh-keygen hashed, ports, revoked keys and
// certificate authorities. ssh-keygen finds what WriteKnownHosts writes.
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
	known := readKnownHosts(t, file, nodes...)
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
	err := r.Vault().View(t.Context(), func(tx *vault.Tx) error { return registry.WriteKnownHosts(t.Context(), tx, &written) })
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
}

func readKnownHosts(t *testing.T, file string, nodes ...registry.Node) registry.KnownHosts {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	known, err := registry.ReadKnownHosts(f, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return known
}

// TestKnownHostsBadLines: a line that OpenSSH skips is skipped and reported. The other
// lines are read.
func TestKnownHostsBadLines(t *testing.T) {
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(hostKey(t, 1))))
	blob := strings.Fields(key)[1]
	n := keyNode("good")
	n.SSHHost = "good.example.org"
	for name, test := range map[string]struct {
		line string
		said bool
	}{
		"fields":       {"bad.example.org", true},
		"no key":       {"bad.example.org ssh-ed25519", true},
		"type":         {"bad.example.org ssh-future AAAAC3NzaC1mdXR1cmU=", true},
		"protocol 1":   {"bad.example.org 1024 35 1234567890", true},
		"base64":       {"bad.example.org ssh-ed25519 ****", true},
		"cut key":      {"bad.example.org ssh-ed25519 " + blob[:40], true},
		"other type":   {"bad.example.org ssh-rsa " + blob, true},
		"marker":       {"@nonsense bad.example.org " + key, true},
		"hashed":       {"|1|nonsense| " + key, true},
		"hashed twice": {"|2|AAAA|AAAA " + key, true},
		"long":         {"bad.example.org " + key + strings.Repeat(" c", 64<<10), true},
		"binary":       {"\x00\xff\xfe", true},
		"empty":        {"", false},
		"blanks":       {" \t ", false},
		"comment":      {"  # bad.example.org " + key, false},
		"long comment": {"bad.example.org " + key + " a comment of many words", false},
	} {
		for _, end := range []string{"\n", "\r\n"} {
			file := filepath.Join(t.TempDir(), "known_hosts")
			content := test.line + end + "\t good.example.org  " + key + " good" + end + test.line + end + "also.example.org,good.example.org " + key
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			known := readKnownHosts(t, file, n)
			if keys := known.Keys["good"]; len(keys) != 1 || ssh.FingerprintSHA256(keys[0]) != ssh.FingerprintSHA256(hostKey(t, 1)) {
				t.Errorf("%s: %v", name, known)
			}
			want := 0
			if test.said {
				want = 2
			}
			if len(known.Skipped) != want || want > 0 && known.Skipped[1].Row != "line 3" {
				t.Errorf("%s: skipped %v", name, known.Skipped)
			}
		}
	}
	many := strings.Repeat("nonsense\n", 1000)
	known, err := registry.ReadKnownHosts(strings.NewReader(many), nil)
	if err != nil || len(known.Skipped) != 100 || known.More != 900 {
		t.Errorf("%d told, %d more, %v", len(known.Skipped), known.More, err)
	}
}

// TestKnownHostsNames finds the same names as ssh-keygen -F, which is OpenSSH's own
// code. It also finds an address by its other forms.
func TestKnownHostsNames(t *testing.T) {
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(hostKey(t, 1))))
	for _, test := range []struct {
		hosts, host string
		port        uint16
		want        bool
		form        bool // another form of the address, which OpenSSH does not look for
	}{
		{hosts: "a.example.org", host: "a.example.org", want: true},
		{hosts: "A.Example.org", host: "a.example.org", want: true},
		{hosts: "*.example.org", host: "a.example.org", want: true},
		{hosts: "*.example.org,!a.example.org", host: "a.example.org"},
		{hosts: "!a.example.org,*.example.org", host: "a.example.org"},
		{hosts: "!*.example.org,*", host: "b.example.net", want: true},
		{hosts: "?.example.org", host: "ab.example.org"},
		{hosts: "a*b*c.org", host: "axbxbc.org", want: true},
		{hosts: "a.example.org", host: "a.example.org", port: 2222},
		{hosts: "[a.example.org]:2222", host: "a.example.org", port: 2222, want: true},
		{hosts: "[*.example.org]:2222", host: "a.example.org", port: 2222, want: true},
		{hosts: "*", host: "a.example.org", port: 2222, want: true},
		{hosts: "192.0.2.*", host: "192.0.2.7", want: true},
		{hosts: "::1", host: "::1", want: true},
		{hosts: "[::1]:2222", host: "::1", port: 2222, want: true},
		{hosts: "0:0:0:0:0:0:0:1", host: "::1", want: true, form: true},
		{hosts: "[0:0:0:0:0:0:0:1]:2222", host: "::1", port: 2222, want: true, form: true},
		{hosts: "2001:DB8:0::1", host: "2001:db8::1", want: true, form: true},
		{hosts: "::ffff:192.0.2.7", host: "192.0.2.7", want: true, form: true},
	} {
		n := keyNode("n")
		n.SSHHost = test.host
		lookup := test.host
		if n.SSHPort = 22; test.port != 0 {
			n.SSHPort, lookup = test.port, fmt.Sprintf("[%s]:%d", test.host, test.port)
		}
		file := filepath.Join(t.TempDir(), "known_hosts")
		if err := os.WriteFile(file, []byte(test.hosts+" "+key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := len(readKnownHosts(t, file, n).Keys["n"]) == 1; got != test.want {
			t.Errorf("%q has %q: %v", test.hosts, lookup, got)
		}
		if err := exec.Command("ssh-keygen", "-F", lookup, "-f", file).Run(); !test.form && (err == nil) != test.want {
			t.Errorf("ssh-keygen says otherwise: %q has %q: %v", test.hosts, lookup, err)
		}
		if strings.ContainsAny(test.hosts, "*?!,") || test.hosts != strings.ToLower(test.hosts) {
			continue
		}
		if out, err := exec.Command("ssh-keygen", "-H", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := len(readKnownHosts(t, file, n).Keys["n"]) == 1; got != test.want {
			t.Errorf("hashed, %q has %q: %v", test.hosts, lookup, got)
		}
	}
}

// TestKnownHostsLeavesNoCopy: reading writes no file, because the names of hosts are
// confidential.
func TestKnownHostsLeavesNoCopy(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", filepath.Join(dir, "none")) // where nothing can be written
	n := keyNode("n")
	n.SSHHost = "a.example.org"
	known, err := registry.ReadKnownHosts(strings.NewReader("a.example.org "+string(ssh.MarshalAuthorizedKey(hostKey(t, 1)))), []registry.Node{n})
	if err != nil || len(known.Keys["n"]) != 1 {
		t.Errorf("%v, %v", known, err)
	}
}

func FuzzReadKnownHosts(f *testing.F) {
	f.Add("plain.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW\n")
	f.Add("@revoked * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyaoE/LSukHSe3IdytK9lwsvbDHWFdZTbhKPPVXtpPW\n")
	f.Add("|1|a|b ssh-ed25519 AAAA\n\n#\n@cert-authority\n")
	n := keyNode("plain")
	n.SSHHost = "plain.example.org"
	f.Fuzz(func(t *testing.T, text string) {
		known, err := registry.ReadKnownHosts(strings.NewReader(text), []registry.Node{n})
		if err != nil && (known.Keys != nil || known.Skipped != nil) {
			t.Errorf("%v, %v", known, err)
		}
	})
}
