package api

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// rustc is Debian's. What else is in PATH may be a launcher that would download a compiler.
const rustc = "/usr/bin/rustc"

// TestRust builds the example in Rust and runs it against a server.
func TestRust(t *testing.T) {
	program := filepath.Join(t.TempDir(), "queen-rs")
	if out, err := exec.Command(rustc, "--edition", "2021", "-D", "warnings", "-o", program, "../examples/queen-rs/main.rs").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := serve(t, nil)
	run := func(stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, append([]string{s.socket}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	want := func(want string, ok bool, args ...string) {
		t.Helper()
		if got, err := run("", args...); !strings.HasPrefix(got, want) || (err == nil) != ok {
			t.Errorf("%v: %q, %v, want %q", args, got, err, want)
		}
	}

	watching := exec.CommandContext(t.Context(), program, s.socket, "watch")
	pipe, err := watching.StdoutPipe()
	check(t, err)
	check(t, watching.Start())
	lines := make(chan string, 16)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(pipe); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	seen := func(want string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != want {
				t.Errorf("watch: %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("watch: waited in vain for %q", want)
		}
	}
	seen("list 0")
	want("added hive-01", true, "add", "hive-01", "hive-01.example.org", "ops")
	seen("added hive-01")
	want("queen-rs: exists: ", false, "add", "hive-01", "hive-01.example.org", "ops")
	want("written 1", true, "state", "hive-01", "online")
	seen("changed hive-01")
	want("hive-01 online", true, "list")
	want("queen-rs: there is no node nobody", false, "state", "nobody", "online")
	want("queen-rs: invalid: ", false, "add", "-x", "h", "ops")
	check(t, s.registry.UpdateNode(t.Context(), "hive-01", func(n *registry.Node) error { n.Note = "\"ä\" 🐝 \\"; return nil }))
	seen("changed hive-01")

	stored, err := s.registry.GenerateSSHKey(t.Context(), "ed25519", "", "hive-01")
	check(t, err)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(stored.PublicKey))
	check(t, err)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	host, err := ssh.NewSignerFromSigner(private)
	check(t, err)
	_, err = s.registry.TrustHostKey(t.Context(), "hive-01", host.PublicKey())
	check(t, err)
	session := bytes.Repeat([]byte{7}, 32)
	proof, err := host.Sign(rand.Reader, session)
	check(t, err)
	request, encode := loginData(session, "ops", key), base64.StdEncoding.EncodeToString
	challenge := fmt.Sprintf(`{"host_key":%q,"session_id":%q,"host_signature":%q,"request":%q}`,
		encode(host.PublicKey().Marshal()), encode(session), encode(ssh.Marshal(proof)), encode(request))
	out, err := run(challenge, "sign", "hive-01")
	check(t, err)
	blob, err := base64.StdEncoding.DecodeString(out)
	check(t, err)
	var signature ssh.Signature
	check(t, ssh.Unmarshal(blob, &signature))
	check(t, key.Verify(request, &signature))

	check(t, s.stop()) // ends the watching
	for line := range lines {
		t.Errorf("watch: %q at the end", line)
	}
	check(t, watching.Wait())
}
