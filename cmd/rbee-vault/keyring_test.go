package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// command runs rbee-vault with --no-input and returns its exit code and output.
func command(t testing.TB, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	exe, err := exec.LookPath("rbee-vault")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"--no-input"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	code = cmd.ProcessState.ExitCode()
	if err := checkOutput(args, code, out.String(), errs.String()); err != nil {
		t.Error(err)
	}
	return code, out.String(), errs.String()
}

// TestKeyringCauses: each failure of a keyring has its own exit code and message, none
// creates a key, and the recovery identity still opens the vault.
func TestKeyringCauses(t *testing.T) {
	session := keyringtest.Start(t)
	home := t.TempDir()
	recovery := filepath.Join(home, "recovery.txt")
	env := append(session.Env(), "HOME="+home)
	expect := func(want int, message string, args ...string) {
		t.Helper()
		code, _, stderr := command(t, env, args...)
		if code != want || !strings.Contains(stderr, message) {
			t.Errorf("%v: exit code %d, want %d with %q:\n%s", args, code, want, message, stderr)
		}
	}
	expect(exitOK, "", "init", "--recovery-out", recovery)
	expect(exitOK, "", "node", "list")

	session.Restart(t)
	expect(exitOK, "", "node", "list") // the key is still there after the daemon was restarted

	session.RestartLocked(t)
	expect(exitKeyring, "locked", "node", "list")
	expect(exitKeyring, "locked", "init", "--recovery-out", filepath.Join(home, "other.txt"), "--db", filepath.Join(home, "other", "v.db"))
	expect(exitOK, "", "node", "list", "--identity", recovery)

	session.StopProvider(t)
	expect(exitKeyring, "no program offers a keyring", "node", "list")

	fakes := []struct {
		mode    keyringtest.Mode
		code    int
		message string
	}{
		{keyringtest.Silent, exitKeyring, "did not answer"},
		{keyringtest.NoCollection, exitKeyring, "no login or default collection"},
		{keyringtest.Honest, exitWrongKey, "has no key of id"},
	}
	for _, f := range fakes {
		fake := keyringtest.StartFake(t, session.Address(), f.mode)
		expect(f.code, f.message, "node", "list")
		expect(exitOK, "", "node", "list", "--identity", recovery)
		fake.Stop()
	}
	for _, value := range []string{"garbage", "rbk1:" + strings.Repeat("0", 32) + ":" + strings.Repeat("0", 64) + ":" + strings.Repeat("0", 32)} {
		fake := keyringtest.StartFake(t, session.Address(), keyringtest.Planted)
		fake.Plant(value)
		expect(exitWrongKey, "does not hold its key", "node", "list")
		fake.Stop()
	}
	lying := keyringtest.StartFake(t, session.Address(), keyringtest.Lying)
	other := filepath.Join(home, "other.txt")
	expect(exitKeyring, "did not store", "init", "--recovery-out", other, "--db", filepath.Join(home, "lying", "v.db"))
	expect(exitWrongKey, "has no key of id", "rotate") // the keyring did not store the key
	expect(exitKeyring, "did not store", "rotate", "--identity", recovery)
	expect(exitKeyring, "did not store", "slot", "add", "keyring", "--identity", recovery)
	expect(exitOK, "", "node", "list", "--identity", recovery)
	lying.Stop()
	session.Restart(t)
	expect(exitOK, "", "node", "list") // the old key is still in the keyring
	if _, err := os.Stat(filepath.Join(home, "lying", "v.db")); err == nil {
		t.Error("a vault was made although its key was not stored")
	}

	env = append(env, "DBUS_SESSION_BUS_ADDRESS=")
	expect(exitKeyring, "no D-Bus session bus", "node", "list")
}
