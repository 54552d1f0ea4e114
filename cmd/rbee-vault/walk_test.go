package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestOperatorsWalk goes from an ssh_config to a vault, through a rotation and the loss of the
// laptop, and to the same nodes again from a blank one.
func TestOperatorsWalk(t *testing.T) {
	f := newRotationFleet(t)
	home, runtime, temp := filepath.Dir(f.recovery), t.TempDir(), t.TempDir()
	f.env = append(f.env, "XDG_RUNTIME_DIR="+runtime, "TMPDIR="+temp)
	safe := t.TempDir() // where the recovery sheet and the backups are, and the operator's own key
	own := filepath.Join(safe, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bastion, keys1 := f.authorizedBy("LogLevel VERBOSE")
	inner, keys2 := f.authorizedBy()
	for _, keys := range []string{keys1, keys2} {
		f.write(keys, f.read(own+".pub"))
	}
	config := filepath.Join(safe, "config")
	f.write(config, fmt.Sprintf(`Host bastion
  HostName %[1]s
  Port %[2]s
  User %[3]s
Host gpu-1
  HostName %[4]s
  Port %[5]s
  User %[6]s
  ProxyJump bastion
Host *
  IdentityFile %[7]s
`, bastion.Host, bastion.Port, bastion.User, inner.Host, inner.Port, inner.User, own))

	f.expect(exitOK, "gpu-1", "node", "import", "--ssh-config", config, "--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee")
	f.expect(exitPartial, "pin it now: --pin SHA256:", "check", "--no-input")
	f.expect(exitOK, "", "check", "--pin", fingerprintOf(t, bastion.PublicFiles[0]), "--pin", fingerprintOf(t, inner.PublicFiles[0]))
	for _, node := range []string{"bastion", "gpu-1"} {
		f.expect(exitOK, "", "ssh-key", "generate", "--node", node, "--comment", "rbee@"+node)
		f.expect(exitOK, node+" accepts its key now", "ssh-key", "install", node)
	}
	for _, keys := range []string{keys1, keys2} { // the operator's own key is not needed any more
		f.write(keys, strings.TrimPrefix(f.read(keys), f.read(own+".pub")))
	}
	reached := func() {
		t.Helper()
		f.expect(exitOK, "online", "check")
		before := strings.Count(bastion.Log(), "Accepted publickey")
		cmd := exec.Command("rbee-vault", "ssh", "gpu-1", "echo in $SSH_CONNECTION")
		cmd.Env = append(os.Environ(), f.env...)
		if out, err := cmd.Output(); err != nil || !strings.HasPrefix(string(out), "in ") || !strings.HasSuffix(string(out), " "+inner.Port+"\n") {
			t.Errorf("ssh: %v: %s", err, out)
		}
		if strings.Count(bastion.Log(), "Accepted publickey") == before {
			t.Error("nobody went through the bastion")
		}
		f.expect(exitOK, "gpu-1\ton", "exec", "--where", "label.rack=3", "--", "echo", "on")
	}
	f.expect(exitOK, "", "node", "label", "gpu-1", "rack=3")
	reached()

	before := f.read(keys1) + f.read(keys2)
	f.expect(exitOK, "gpu-1 accepts its new key only", "ssh-key", "rotate", "--all")
	for _, keys := range []string{keys1, keys2} {
		if strings.Contains(before, strings.Fields(f.read(keys))[1]) {
			t.Errorf("the old key is still in %s", keys)
		}
	}
	reached()

	// What the operator has elsewhere, and then the laptop is lost.
	signer := regexp.MustCompile(`(?m)^# signer: (.*)$`).FindStringSubmatch(f.read(f.recovery))[1]
	file := f.backups()[0]
	for name, path := range map[string]string{"recovery.txt": f.recovery, "b.age": file} {
		f.write(filepath.Join(safe, name), f.read(path))
	}
	var secrets [][]byte
	for _, text := range f.pemsIn(file) {
		key, err := ssh.ParseRawPrivateKey(text)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(text, []byte("\n"))
		secrets = append(secrets, lines[4], key.(*ed25519.PrivateKey).Seed()) // the seed is in the last lines
	}
	if len(secrets) != 8 { // of two nodes, the old keys and the new ones
		t.Errorf("%d keys in the backup", len(secrets)/2)
	}
	for _, dir := range []string{home, runtime, temp} {
		findSecrets(t, dir, secrets)
	}
	if err := os.RemoveAll(filepath.Dir(f.db)); err != nil {
		t.Fatal(err)
	}
	blank := t.TempDir()
	recovery := filepath.Join(safe, "recovery.txt")
	f.env = []string{"HOME=" + blank, "DBUS_SESSION_BUS_ADDRESS=", "SSH_AUTH_SOCK=", "XDG_RUNTIME_DIR=" + runtime, "TMPDIR=" + temp}
	f.expect(exitUntrusted, "", "restore", filepath.Join(safe, "b.age"), "--no-keyring", "--no-input", "--identity", recovery)
	f.expect(exitOK, "", "restore", filepath.Join(safe, "b.age"), "--no-keyring", "--identity", recovery, "--signer", signer)
	f.env = append(f.env, "RBEE_VAULT_IDENTITY_FILE="+recovery)
	reached()
	f.expect(exitOK, "gpu-1 accepts its new key only", "ssh-key", "rotate", "--all")
	reached()
	for _, dir := range []string{blank, runtime, temp} {
		findSecrets(t, dir, secrets)
	}
}

// findSecrets looks for private keys in every file below a directory: the word, a line
// of their text, and the bytes that it encodes.
func findSecrets(t *testing.T, dir string, secrets [][]byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
			t.Errorf("a private key is in %s", path)
		}
		for _, secret := range secrets {
			if bytes.Contains(data, secret) {
				t.Errorf("a private key is in %s", path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
