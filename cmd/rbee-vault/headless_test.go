package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unit is the documented systemd unit.
const unit = "../../systemd/queen-rbee.service"

// TestSystemdUnit: systemd finds no error in the unit, and the unit gives the daemon few
// rights.
func TestSystemdUnit(t *testing.T) {
	data, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"\nStateDirectoryMode=0700\n", "\nLoadCredentialEncrypted=rbee-vault:", "\nLimitCORE=0\n"} {
		if !bytes.Contains(data, []byte(line)) {
			t.Errorf("the unit lacks %q", line)
		}
	}
	// systemd-analyze verify needs a program that exists.
	installed := filepath.Join(t.TempDir(), "queen-rbee.service")
	data = bytes.Replace(data, []byte("ExecStart=/usr/local/bin/queen-rbee"), []byte("ExecStart=/bin/true"), 1)
	if err := os.WriteFile(installed, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", installed).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v: %s", err, out)
	}
	// The scale goes from 0 (no rights) to 100.
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=15", installed).CombinedOutput(); err != nil {
		t.Errorf("security: %v: %s", err, out)
	}
}

// TestSystemdCredential encrypts a credential for this host with systemd-creds, decrypts it
// into a directory like the one that systemd makes, and opens the vault with it.
func TestSystemdCredential(t *testing.T) {
	home := t.TempDir()
	place := filepath.Join(home, "place") // as XDG_RUNTIME_DIR and TMPDIR, to look into
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"HOME=" + home, "TMPDIR=" + place, "DBUS_SESSION_BUS_ADDRESS=", "CREDENTIALS_DIRECTORY=",
		"SYSTEMD_CREDENTIAL_SECRET=" + filepath.Join(home, "host-secret"), // not this machine's
	}
	recovery, file := filepath.Join(home, "r.txt"), filepath.Join(home, "rbee-vault.cred")
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, env, args...)
		if code != exitOK || strings.Contains(stdout+stderr, "AGE-SECRET-KEY") {
			t.Fatalf("%v: exit code %d:\n%s%s", args, code, stdout, stderr)
		}
		return stdout
	}
	must("init", "--no-keyring", "--recovery-out", recovery)
	must("slot", "add", "credential", "--systemd", "--with-key=host", "--out", file, "--identity", recovery)
	encrypted, err := os.ReadFile(file)
	if err != nil || bytes.Contains(encrypted, []byte("AGE-SECRET-KEY")) {
		t.Fatalf("the credential: %v, %d bytes", err, len(encrypted))
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(place); err != nil || len(left) > 0 {
		t.Errorf("there are other files: %v, %v", left, err)
	}

	// That directory is protected by an ACL, and the mode bits show the mask of the ACL.
	dir := filepath.Join(home, "credentials")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	decrypt := exec.Command("systemd-creds", "decrypt", "--name=rbee-vault", file, filepath.Join(dir, "rbee-vault"))
	decrypt.Env = append(os.Environ(), env...)
	if out, err := decrypt.CombinedOutput(); err != nil {
		t.Fatalf("systemd-creds decrypt: %v: %s", err, out)
	}
	if err := os.Chmod(filepath.Join(dir, "rbee-vault"), 0o440); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o550); err != nil {
		t.Fatal(err)
	}
	env = append(env, "CREDENTIALS_DIRECTORY="+dir)
	if out := must("status"); !strings.Contains(out, "credential") {
		t.Errorf("not opened by the credential:\n%s", out)
	}
	must("node", "list", "--identity", filepath.Join(dir, "rbee-vault"))
	must("rotate")
	must("node", "list")
	if out := must("doctor"); !strings.Contains(out, "opens by credential rbee-vault") {
		t.Errorf("doctor does not try the credential:\n%s", out)
	}

	// A slot that cannot be added leaves no file.
	for name, args := range map[string][]string{
		"a key that systemd-creds does not have": {"--with-key=nonsense", "--out", file + ".2"},
		"a file that exists":                     {"--with-key=host", "--out", file},
	} {
		before := must("slot", "list")
		code, _, stderr := command(t, env, append([]string{"slot", "add", "credential", "--systemd"}, args...)...)
		if code == exitOK || must("slot", "list") != before {
			t.Errorf("%s: exit code %d:\n%s", name, code, stderr)
		}
		if _, err := os.Stat(file + ".2"); err == nil {
			t.Errorf("%s: a file is left", name)
		}
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, encrypted) {
		t.Errorf("the credential was changed: %v", err)
	}
}

// TestSystemdAgent: systemd finds no error in the units of the agent, and the service has
// what the manager of a user can take away.
func TestSystemdAgent(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"rbee-vault-agent.socket", "rbee-vault-agent.service"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(unit), name))
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.Replace(data, []byte("ExecStart=/usr/local/bin/rbee-vault --no-input agent"), []byte("ExecStart=/bin/true"), 1)
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	analyze := func(args ...string) {
		t.Helper()
		cmd := exec.Command("systemd-analyze", args...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil || args[1] == "verify" && len(out) > 0 {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	analyze(append([]string{"--user", "verify"}, files...)...)
	// The scale goes from 0 (no rights) to 100; much of it is only for the system's manager.
	analyze("--user", "security", "--offline=true", "--threshold=61", files[1])
}

// TestServeUnits: systemd finds no error in the units of the HTTP interface, and they give it
// few rights.
func TestServeUnits(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"rbee-vault-serve.socket", "rbee-vault-serve.service"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(unit), name))
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.Replace(data, []byte("ExecStart=/usr/local/bin/rbee-vault --no-input serve"), []byte("ExecStart=/bin/true"), 1)
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"verify"}, files...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v: %s", err, out)
	}
	// The scale goes from 0 (no rights) to 100.
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", files[1]).CombinedOutput(); err != nil {
		t.Errorf("security: %v: %s", err, out)
	}
}
