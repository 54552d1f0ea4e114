package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/internal/plugintest"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// console is a program on a terminal of its own.
type console struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	stdout bytes.Buffer // for data: not the terminal

	expected int // bytes of seen, without its \r, that expect has matched

	mu   sync.Mutex
	seen bytes.Buffer
	more chan struct{}
	read chan struct{} // closed when nothing more comes
}

// startConsole starts rbee-vault with a pseudo-terminal as its controlling terminal.
// Standard output is a pipe.
func startConsole(t *testing.T, env []string, args ...string) *console {
	t.Helper()
	return startTerminal(t, unix.Winsize{}, env, "rbee-vault", args...)
}

// startOn is startConsole on a terminal of this size, where standard output goes too.
func startOn(t *testing.T, size unix.Winsize, env []string, args ...string) *console {
	t.Helper()
	return startTerminal(t, size, env, "rbee-vault", args...)
}

// openTerminal makes a pseudo-terminal. The caller closes the slave.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// startTerminal is startOn for any program. Without a size, standard output is a pipe.
func startTerminal(t *testing.T, size unix.Winsize, env []string, program string, args ...string) *console {
	t.Helper()
	exe, err := exec.LookPath(program) // TestMain puts it into PATH
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), env...)
	return runOnTerminal(t, size, cmd)
}

// runOnTerminal starts a command that is prepared but for its terminal.
func runOnTerminal(t *testing.T, size unix.Winsize, cmd *exec.Cmd) *console {
	t.Helper()
	master, slave := openTerminal(t)
	defer slave.Close()
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, master: master, cmd: cmd, more: make(chan struct{}, 1), read: make(chan struct{})}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, &c.stdout, slave
	if size.Row > 0 {
		c.cmd.Stdout = slave
	}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			c.mu.Lock()
			c.seen.Write(buf[:n])
			c.mu.Unlock()
			select {
			case c.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

// expect waits until the terminal has text that matches the pattern, behind what it was to
// have before, and returns the match.
func (c *console) expect(pattern string) []string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		text := strings.ReplaceAll(c.seen.String(), "\r", "")
		c.mu.Unlock()
		if m := re.FindStringSubmatchIndex(text[c.expected:]); m != nil {
			groups := re.FindStringSubmatch(text[c.expected:])
			c.expected += m[1]
			return groups
		}
		select {
		case <-c.more:
		case <-deadline:
			c.t.Fatalf("the terminal never showed %q:\n%s", pattern, text)
		}
	}
}

func (c *console) send(text string) {
	c.t.Helper()
	if _, err := c.master.WriteString(text); err != nil {
		c.t.Fatal(err)
	}
}

// exit waits until the command has ended and all that it wrote is on the screen. One that waits
// for a key that nobody presses is killed.
func (c *console) exit() int {
	c.t.Helper()
	kill := time.AfterFunc(2*time.Minute, func() { c.cmd.Process.Kill() })
	c.cmd.Wait()
	kill.Stop()
	select {
	case <-c.read:
	case <-time.After(30 * time.Second):
		c.t.Fatalf("the terminal is still open elsewhere:\n%s", c.screen())
	}
	return c.cmd.ProcessState.ExitCode()
}

func TestInitShowsRecoveryOnTheTerminalOnly(t *testing.T) {
	home := t.TempDir()
	env := []string{"HOME=" + home, "DBUS_SESSION_BUS_ADDRESS="}
	c := startConsole(t, env, "init", "--no-keyring")
	identity := c.expect(`AGE-SECRET-KEY-1[0-9A-Z]+`)[0]
	c.expect(`last 6 characters`)
	c.send("wrong!\n")
	c.expect(`not its last 6 characters`)
	c.send(strings.ToLower(identity[len(identity)-6:]) + "\n")
	if code := c.exit(); code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, c.seen.String())
	}
	if strings.Contains(c.stdout.String(), "AGE-SECRET-KEY") {
		t.Error("the recovery identity went to standard output")
	}
	file := filepath.Join(t.TempDir(), "recovery.txt")
	if err := os.WriteFile(file, []byte(identity+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c = startConsole(t, env, "node", "list", "--identity", file)
	if code := c.exit(); code != exitOK {
		t.Errorf("the identity that was shown does not open the vault: exit code %d", code)
	}
}

func TestInitInterruptedAtTheTerminal(t *testing.T) {
	for _, stop := range []struct {
		name string
		keys string
		code int
	}{
		{"interrupt", "\x03", exitInterrupted},
		{"three wrong answers", "a\nb\nc\n", exitError},
	} {
		t.Run(stop.name, func(t *testing.T) {
			home := t.TempDir()
			env := []string{"HOME=" + home, "DBUS_SESSION_BUS_ADDRESS="}
			c := startConsole(t, env, "init", "--no-keyring")
			c.expect(`last 6 characters`)
			c.send(stop.keys)
			if code := c.exit(); code != stop.code {
				t.Errorf("exit code %d, want %d:\n%s", code, stop.code, c.seen.String())
			}
			left, err := os.ReadDir(filepath.Dir(vault.DefaultPath(home)))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range left {
				if name := e.Name(); name != "beehives.db.lock" && name != "beehives.db.write" && name != "beehives.db.anchor" {
					t.Errorf("%s was left behind", name)
				}
			}
			c = startConsole(t, env, "init", "--no-keyring", "--no-input", "--recovery-out", filepath.Join(home, "r.txt"))
			if code := c.exit(); code != exitOK {
				t.Errorf("init again: exit code %d:\n%s", code, c.seen.String())
			}
		})
	}
}

// screen returns all text that the terminal has shown.
func (c *console) screen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen.String()
}

// keylessVault creates a vault that opens with a recovery identity only.
func keylessVault(t testing.TB) (env []string, recovery string) {
	t.Helper()
	home := t.TempDir()
	env = []string{"HOME=" + home, "DBUS_SESSION_BUS_ADDRESS="}
	recovery = filepath.Join(home, "r.txt")
	if code, _, stderr := command(t, env, "init", "--no-keyring", "--recovery-out", recovery); code != exitOK {
		t.Fatal(stderr)
	}
	return env, recovery
}

// TestPassphraseAtTheTerminal: a new passphrase is typed twice and never shown. After a
// wrong passphrase the command prompts again.
func TestPassphraseAtTheTerminal(t *testing.T) {
	env, recovery := keylessVault(t)
	c := startConsole(t, env, "slot", "add", "passphrase", "--allow-weak", "--identity", recovery)
	c.expect(`New passphrase \(Enter: these words\): $`)
	c.send("planted-passphrase\n")
	c.expect(`Repeat passphrase: $`)
	c.send("planted-passphrase\n")
	if code := c.exit(); code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, c.screen())
	}
	open := startConsole(t, env, "node", "list")
	open.expect(`Passphrase of the vault: $`)
	open.send("planted-wrong\n")
	open.expect(`Wrong passphrase\.\nPassphrase of the vault: $`)
	open.send("planted-passphrase\n")
	if code := open.exit(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, open.screen())
	}
	thrice := startConsole(t, env, "node", "list")
	for range 3 {
		thrice.expect(`Passphrase of the vault: $`)
		thrice.send("planted-wrong\n")
	}
	if code := thrice.exit(); code != exitWrongKey {
		t.Errorf("exit code %d, want %d:\n%s", code, exitWrongKey, thrice.screen())
	}
	interrupted := startConsole(t, env, "node", "list")
	interrupted.expect(`Passphrase of the vault: $`)
	interrupted.send("\x03")
	if code := interrupted.exit(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d:\n%s", code, exitInterrupted, interrupted.screen())
	}
	for _, c := range []*console{c, open, thrice, interrupted} {
		if strings.Contains(c.screen(), "planted") {
			t.Errorf("the terminal shows a passphrase:\n%s", c.screen())
		}
	}
}

// TestPluginAtTheTerminal: an age plugin prompts for its PIN in its own words.
func TestPluginAtTheTerminal(t *testing.T) {
	plugintest.Install(t)
	env, recovery := keylessVault(t)
	key := plugintest.NewKey(t, false)
	if code, _, stderr := command(t, env, "slot", "add", "recipient", key.Recipient, "--identity", recovery); code != exitOK {
		t.Fatal(stderr)
	}
	identity := filepath.Join(t.TempDir(), "plugin.txt")
	if err := os.WriteFile(identity, []byte(key.WithPIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := startConsole(t, env, "node", "list", "--identity", identity)
	c.expect(`enter the PIN of the test key`)
	c.send("1234\n")
	c.expect(`Is it your vault\?`) // a plugin has no secret that can vouch
	c.send("y\n")
	if code := c.exit(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	if code, _, stderr := command(t, env, "node", "list", "--identity", identity); code != exitWrongKey {
		t.Errorf("without a prompt: exit code %d, want %d:\n%s", code, exitWrongKey, stderr)
	}
	for _, args := range [][]string{{"rotate"}, {"backup"}} {
		if code, _, stderr := command(t, env, append(args, "--identity", recovery)...); code != exitOK {
			t.Errorf("%v: exit code %d:\n%s", args, code, stderr)
		}
	}
	// Without the plugin nothing can be encrypted to it, and that is reported.
	env = append(env, "PATH=/usr/bin:/bin")
	for _, args := range [][]string{{"rotate"}, {"rotate", "--dry-run"}, {"backup"}} {
		if code, _, stderr := command(t, env, append(args, "--identity", recovery)...); code != exitError || !strings.Contains(stderr, "age-plugin-rbeetest is not installed") {
			t.Errorf("%v: exit code %d:\n%s", args, code, stderr)
		}
	}
	if code, stdout, _ := command(t, env, "doctor", "--identity", recovery); code != exitPartial || !strings.Contains(stdout, "age-plugin-rbeetest is not installed") {
		t.Errorf("doctor: exit code %d:\n%s", code, stdout)
	}
	if code, _, stderr := command(t, env, "node", "list", "--identity", recovery); code != exitOK {
		t.Errorf("another unlock method: exit code %d:\n%s", code, stderr)
	}
}

// TestRecoveryAtTheTerminal: a second recovery identity is shown once, and opens the vault
// after it was confirmed.
func TestRecoveryAtTheTerminal(t *testing.T) {
	env, recovery := keylessVault(t)
	c := startConsole(t, env, "slot", "add", "recovery", "--identity", recovery)
	identity := c.expect(`AGE-SECRET-KEY-1[0-9A-Z]+`)[0]
	c.expect(`last 6 characters`)
	c.send(identity[len(identity)-6:] + "\n")
	if code := c.exit(); code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, c.screen())
	}
	file := filepath.Join(t.TempDir(), "second.txt")
	if err := os.WriteFile(file, []byte(identity), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, env, "node", "list", "--identity", file); code != exitOK {
		t.Error(stderr)
	}
	c = startConsole(t, env, "slot", "add", "recovery", "--identity", recovery)
	c.expect(`last 6 characters`)
	c.send("\x03")
	if code := c.exit(); code != exitInterrupted {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	if _, stdout, _ := command(t, env, "slot", "list", "--identity", recovery); strings.Count(stdout, "\n") != 2 {
		t.Errorf("slots:\n%s", stdout)
	}
}

// TestOfferedWords: who takes the words that are offered types them once, and they open the vault.
func TestOfferedWords(t *testing.T) {
	env, recovery := keylessVault(t)
	c := startConsole(t, env, "slot", "add", "passphrase", "--identity", recovery)
	words := c.expect(`Six random words, if you want them: ([a-z-]+)\n`)[1]
	c.expect(`these words\): $`)
	c.send("\n")
	c.expect(`Repeat passphrase: $`)
	c.send(words + "\n")
	if code := c.exit(); code != exitOK || strings.Count(words, "-") < offeredWords-1 || strings.Count(c.screen(), words) != 1 {
		t.Fatalf("exit code %d:\n%s", code, c.screen())
	}
	open := startConsole(t, env, "node", "list")
	open.expect(`Passphrase of the vault: $`)
	open.send(words + "\n")
	if code := open.exit(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, open.screen())
	}
	other := startConsole(t, env, "slot", "add", "passphrase", "--identity", recovery)
	if again := other.expect(`if you want them: ([a-z-]+)\n`)[1]; again == words {
		t.Error("the same words are offered again")
	}
	other.send("\x03")
	if code := other.exit(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
}

// TestRemoveMany: the question quotes a few nodes, and a number answers it where there are many.
func TestRemoveMany(t *testing.T) {
	h := newHives(t)
	for i := range 12 {
		h.must("node", "add", fmt.Sprintf("n%d", i+1), "--ssh-host", "192.0.2.1", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt")
	}
	for _, answer := range []string{"y", "11", "12"} {
		c := startConsole(t, h.env, "node", "remove", "n*")
		c.expect(`Remove 12 nodes \(n1, n2, n3, n4, n5 and 7 more\)\? Type 12 to go on: $`)
		c.send(answer + "\n")
		want := exitError
		if answer == "12" {
			want = exitOK
		}
		if code := c.exit(); code != want {
			t.Errorf("%s: exit code %d, want %d", answer, code, want)
		}
	}
	if code, out, _ := command(t, h.env, "node", "list"); code != exitOK || out != "" {
		t.Errorf("%d %s", code, out)
	}
}

// TestNodeAddAsks: what cannot be is said at the question that it answers, and what cannot succeed
// before the first one.
func TestNodeAddAsks(t *testing.T) {
	h := newHives(t)
	h.must("config", "set", "git-repo", "https://example.org/r.git")
	h.must("config", "set", "install-path", "/opt/rbee")
	c := startConsole(t, h.env, "node", "add", "hive-01", "--label", "rack=3")
	c.expect(`Host name or address \[hive-01\]: $`)
	c.send("bad host!\n")
	c.expect(`ssh_host must be .*\.\nHost name or address \[hive-01\]: $`)
	c.send("\n")
	c.expect(`SSH user.*: $`)
	c.send("-oProxyCommand=x\n")
	c.expect(`ssh_user must not start with '-'\.\nSSH user.*: $`)
	c.send("ops\n")
	c.expect(`added hive-01\n`)
	if code := c.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	h.expect(exitOK, "", "node", "list", "hive-01", "--where", "label.rack=3")
	for name, row := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a node that exists": {[]string{"hive-01"}, exitExists, `node update hive-01`},
		"a label":            {[]string{"hive-02", "--label", "rack"}, exitInvalid, `rack=3`},
		"a name":             {[]string{"hive 02"}, exitInvalid, `node_name`},
	} {
		c := startConsole(t, h.env, append([]string{"node", "add"}, row.args...)...)
		c.expect(row.says)
		if code := c.exit(); code != row.code || strings.Contains(c.screen(), "Host name") {
			t.Errorf("%s: exit code %d:\n%s", name, code, c.screen())
		}
	}
}

// TestWeakPassphraseAgain: a passphrase that is refused is not to be repeated, and another one may
// be typed.
func TestWeakPassphraseAgain(t *testing.T) {
	env, recovery := keylessVault(t)
	c := startConsole(t, env, "slot", "add", "passphrase", "--identity", recovery)
	words := c.expect(`if you want them: ([a-z-]+)\n`)[1]
	c.expect(`these words\): $`)
	c.send("hunter2\n")
	c.expect(`the passphrase is weak.*\nNew passphrase \(Enter: these words\): $`)
	c.send("\n")
	c.expect(`Repeat passphrase: $`)
	c.send("other\n")
	c.expect(`differ.*\nNew passphrase \(Enter: these words\): $`)
	c.send("\n")
	c.expect(`Repeat passphrase: $`)
	c.send(words + "\n")
	if code := c.exit(); code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, c.screen())
	}
	if !strings.Contains(c.screen(), "The vault now opens by") || strings.Contains(c.screen(), "hunter2") {
		t.Error(c.screen())
	}
	c = startConsole(t, env, "slot", "add", "passphrase", "--identity", recovery)
	for range 3 {
		c.expect(`these words\): $`)
		c.send("hunter2\n")
	}
	c.expect(`--allow-weak`)
	if code := c.exit(); code != exitInvalid {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
}

// TestRestoreTypedSheet: what a drill rehearses, a restore takes: the identity typed from paper, where
// a mistake is pointed at, and then the fingerprint, which may be mistyped too.
func TestRestoreTypedSheet(t *testing.T) {
	env, recovery := keylessVault(t)
	file := filepath.Join(t.TempDir(), "b.age")
	for _, args := range [][]string{{"slot", "add", "recovery", "--out", file + ".txt"}, {"backup", "-o", file}} {
		if code, _, stderr := command(t, env, append(args, "--identity", recovery)...); code != exitOK {
			t.Fatal(stderr)
		}
	}
	paper, err := os.ReadFile(recovery)
	if err != nil {
		t.Fatal(err)
	}
	identity := regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]+`).FindString(string(paper))
	signer := regexp.MustCompile(`(?m)^# signer: (.*)$`).FindStringSubmatch(string(paper))[1]
	db := filepath.Join(t.TempDir(), "new", "v.db")
	for _, refused := range []struct {
		code int
		args []string
	}{
		{exitUsage, nil},
		{exitUsage, []string{file, "--at", "3d"}},
		{exitUsage, []string{file, "--endpoint", "https://example.org"}},
		{exitInvalid, []string{"--at", "nonsense", "--replace"}},
		{exitInvalid, []string{"-"}},
		{exitInvalid, []string{filepath.Dir(file)}},
		{exitNotFound, []string{file + ".not", "--db", db}},
		{exitExists, []string{file}},
		{exitNoVault, []string{file, "--merge", "--db", db}},
		{exitNoVault, []string{"--at", "3d", "--replace", "--db", db}},
	} {
		c := startConsole(t, env, append([]string{"restore", "--sheet"}, refused.args...)...)
		if code := c.exit(); code != refused.code || strings.Contains(c.screen(), "Recovery identity") {
			t.Errorf("%q: exit code %d, want %d:\n%s", refused.args, code, refused.code, c.screen())
		}
	}
	c := startConsole(t, env, "restore", file, "--sheet", "--no-keyring", "--db", db)
	c.expect(`Recovery identity on the sheet .*: $`)
	c.send(identity + "Q\n")
	c.expect(`is too many\.\nRecovery identity on the sheet .*: $`)
	c.send(strings.ToLower(identity) + "\n")
	c.expect(`Fingerprint of the signer on your sheet .*: $`)
	c.send("SHA256:short\n")
	c.expect(`43 characters; this has 5\.\nFingerprint of the signer .*: $`)
	c.send(signer + "\n")
	c.expect(`\n  recovery age1[0-9a-z]+\n\n  rbee-vault status --identity FILE`) // what has not vouched: one on a line
	if code := c.exit(); code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, c.screen())
	}
	if strings.Contains(strings.ToUpper(c.screen()), identity[:30]) {
		t.Errorf("the terminal shows the identity:\n%s", c.screen())
	}
	if code, _, stderr := command(t, env, "status", "--identity", recovery, "--db", db); code != exitOK {
		t.Error(stderr)
	}
}
