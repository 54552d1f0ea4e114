package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestHygiene looks at the process while it prompts and has a secret in memory: core dumps
// are off, new files are private, and the secret is not in its arguments or environment.
func TestHygiene(t *testing.T) {
	home := t.TempDir()
	env := []string{"HOME=" + home, "DBUS_SESSION_BUS_ADDRESS="}
	c := startConsole(t, env, "init", "--no-keyring")
	identity := c.expect(`AGE-SECRET-KEY-1[0-9A-Z]+`)[0]
	c.expect(`last 6 characters`)
	proc := fmt.Sprintf("/proc/%d/", c.cmd.Process.Pid)
	limits, err := os.ReadFile(proc + "limits")
	if err != nil || !regexp.MustCompile(`Max core file size +0 +0 +bytes`).Match(limits) {
		t.Errorf("core dumps are not off: %v\n%s", err, limits)
	}
	for _, name := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(proc + name)
		if err != nil && !os.IsPermission(err) || bytes.Contains(data, []byte(identity)) {
			t.Errorf("%s: %v, or it holds the secret", name, err)
		}
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil || !regexp.MustCompile(`(?m)^Umask:\s+0077$`).Match(status) {
		t.Errorf("the umask is not 077: %v", err)
	}
	c.send(identity[len(identity)-6:] + "\n")
	if code := c.exit(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
}

// TestNotDumpable: the files in /proc of a process that cannot be dumped belong to root,
// else to its user.
func TestNotDumpable(t *testing.T) {
	exe, err := exec.LookPath("rbee-vault")
	if err != nil {
		t.Fatal(err)
	}
	uid := os.Getuid()
	dir := t.TempDir()
	if uid == 0 { // the files of root belong to root in any case
		uid = 65534
		for d := dir; d != "/"; d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil && d == dir {
				t.Fatal(err)
			}
			if d == os.TempDir() {
				break
			}
		}
	}
	program := filepath.Join(dir, "rbee-vault")
	data, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(program, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The command waits for an identity on standard input.
	cmd := exec.Command(program, "node", "list", "--identity", "-", "--no-input", "--db", filepath.Join(dir, "none.db"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		cmd.Wait()
	}()
	owner := func() int {
		var st syscall.Stat_t
		if err := syscall.Stat(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid), &st); err != nil {
			t.Fatal(err)
		}
		return int(st.Uid)
	}
	// Wait until the command has called harden. The deadline of the test ends the wait.
	for owner() != 0 {
		if t.Context().Err() != nil {
			t.Fatal("the process can be dumped")
		}
	}
}

// TestSecretsStayIn plants secrets in the input of many commands, in several modes, and
// looks for the secrets in all output and in all files that are left.
func TestSecretsStayIn(t *testing.T) {
	home := t.TempDir()
	env := []string{"HOME=" + home, "TMPDIR=" + home, "DBUS_SESSION_BUS_ADDRESS="}
	recovery := filepath.Join(home, "r.txt")
	if code, _, stderr := command(t, env, "init", "--no-keyring", "--recovery-out", recovery); code != exitOK {
		t.Fatal(stderr)
	}
	const secret = "planted-passphrase"
	passphrase := filepath.Join(home, "pw")
	broken := filepath.Join(home, "broken")
	for path, text := range map[string]string{passphrase: secret + "\n", broken: "AGE-SECRET-KEY-1PLANTEDPLANTED\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sshKey := filepath.Join(home, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", sshKey).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	lines, err := os.ReadFile(sshKey)
	if err != nil {
		t.Fatal(err)
	}
	private := strings.Split(string(lines), "\n")[3] // where the private half begins
	data, err := os.ReadFile(recovery)
	if err != nil {
		t.Fatal(err)
	}
	identity := regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]+`).FindString(string(data))
	for _, args := range [][]string{
		{"slot", "add", "passphrase", "--passphrase-file", passphrase, "--allow-weak", "--identity", recovery},
		{"node", "list", "--passphrase-file", passphrase},
		{"node", "list", "--identity", broken},
		{"node", "list", "--identity", passphrase},
		{"rotate", "--passphrase-file", passphrase},
		{"slot", "add", "recipient", identity, "--identity", recovery},
		{"doctor", "--identity", recovery, "--passphrase-file", passphrase},
		{"audit", "list", "--identity", recovery},
		{"status", "--identity", recovery},
		{"slot", "list", "--identity", recovery},
		{"node", "add", "hive-01", "--ssh-host", "h", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt", "--import-key", sshKey, "--identity", recovery},
		{"ssh-key", "add", sshKey, "--identity", recovery},
		{"ssh-key", "list", "--identity", recovery},
		{"ssh-key", "show", "SHA256:none", "--identity", recovery},
		{"node", "show", "hive-01", "--identity", recovery},
		{"node", "export", "--format", "json", "--identity", recovery},
		{"backup", "--identity", recovery},
		{"rotate", "--identity", recovery},
	} {
		for _, mode := range []string{"--debug", "--json"} {
			_, stdout, stderr := command(t, env, append(args, mode)...)
			for _, planted := range []string{secret, identity, private, "PLANTED"} {
				if strings.Contains(stdout+stderr, planted) {
					t.Errorf("%v %s says %q:\n%s%s", args, mode, planted, stdout, stderr)
				}
			}
		}
	}
	err = filepath.WalkDir(home, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == passphrase || path == recovery || path == broken || path == sshKey {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret)) || bytes.Contains(data, []byte(identity)) || bytes.Contains(data, []byte(private)) {
			t.Errorf("%s holds a secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
