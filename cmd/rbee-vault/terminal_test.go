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

	"github.com/rbee-keeper/rbee-vault/vault"
)

// console is a program on a terminal of its own.
type console struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	stdout bytes.Buffer // where data goes: not the terminal

	mu   sync.Mutex
	seen bytes.Buffer
	more chan struct{}
}

// startConsole runs rbee-vault with a pseudo-terminal as its controlling one and
// pipes for its data.
func startConsole(t *testing.T, env []string, args ...string) *console {
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
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	exe, err := exec.LookPath("rbee-vault") // testscript puts it into PATH
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, master: master, more: make(chan struct{}, 1)}
	c.cmd = exec.Command(exe, args...)
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, &c.stdout, slave
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
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

// expect waits until the terminal shows what the pattern matches, and returns
// the match.
func (c *console) expect(pattern string) []string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		text := strings.ReplaceAll(c.seen.String(), "\r", "")
		c.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
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

func (c *console) exit() int {
	c.cmd.Wait()
	return c.cmd.ProcessState.ExitCode()
}

func TestInitShowsRecoveryOnTheTerminalOnly(t *testing.T) {
	home := t.TempDir()
	env := []string{"HOME=" + home, "DBUS_SESSION_BUS_ADDRESS="}
	c := startConsole(t, env, "init", "--no-keyring")
	identity := c.expect(`AGE-SECRET-KEY-1[0-9A-Z]+`)[0]
	c.expect(`last 6 characters`)
	c.send("wrong!\n")
	c.expect(`not how it ends`)
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
				if name := e.Name(); name != "beehives.db.lock" && name != "beehives.db.write" {
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
