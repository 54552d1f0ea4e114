package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// week is what an operator has: a desktop with a keyring, and a safe for paper.
type week struct {
	*hives
	all     *testing.T // lives as long as the week
	session *keyringtest.Session
	safe    string // directory: what is not on the laptop
	names   []string
}

// TestWeek is a week of an operator. Each chapter goes on with what the one before has left, on a
// terminal where a person would sit at one, and with pipes elsewhere.
func TestWeek(t *testing.T) {
	session := keyringtest.Start(t)
	w := &week{hives: &hives{t: t}, all: t, session: session, safe: t.TempDir()}
	w.env = append(session.Env(), "TMPDIR="+t.TempDir(), "TERM=xterm", "PAGER=less", "LESS=-i", "USER=ops", "SSH_AUTH_SOCK=", "XDG_CONFIG_HOME=", "CREDENTIALS_DIRECTORY=")
	for _, pair := range session.Env() {
		if value, ok := strings.CutPrefix(pair, "XDG_RUNTIME_DIR="); ok {
			w.runtime = value
		}
	}
	w.moveTo(t.TempDir())
	for _, chapter := range []struct {
		name string
		run  func(*week)
	}{
		{"a desktop", (*week).desktop},
		{"fifteen nodes", (*week).fifteenNodes},
		{"terminals and pipes", (*week).terminalsAndPipes},
		{"two thousand nodes", (*week).twoThousand},
		{"a second operator", (*week).secondOperator},
		{"rotation while others hold the vault", (*week).rotation},
		{"a lost laptop", (*week).lostLaptop},
		{"a server and cron", (*week).headless},
		{"leaving", (*week).leaving},
	} {
		if !t.Run(chapter.name, func(t *testing.T) {
			w.t = t
			chapter.run(w)
		}) {
			return // the others go on with what this one has left
		}
	}
}

// moveTo makes a directory the operator's home.
func (w *week) moveTo(home string) {
	w.home = home
	w.env = append(w.env, "HOME="+home) // the last one counts
}

// on starts the command on a terminal of 24 lines.
func (w *week) on(width int, args ...string) *console {
	return startOn(w.t.(*testing.T), unix.Winsize{Row: 24, Col: uint16(width)}, w.env, args...)
}

// sh runs a script of a shell without a terminal, and returns its output with the errors.
func (w *week) sh(script string, env ...string) string {
	w.t.Helper()
	cmd := exec.Command("bash", "-c", "cd; "+script)
	cmd.Env = append(append(os.Environ(), w.env...), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal to ask on
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func (w *week) write(name, text string) (path string) {
	w.t.Helper()
	path = filepath.Join(w.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *week) read(path string) string {
	w.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

// ends waits for the end of the command, and looks whether the terminal is as it was before.
func (w *week) ends(c *console, want int) {
	w.t.Helper()
	if code := c.exit(); code != want {
		w.t.Errorf("%v: exit code %d, want %d:\n%s", c.cmd.Args[1:], code, want, c.screen())
	}
	fresh, slave := openTerminal(w.t.(*testing.T))
	slave.Close()
	if got, want := termios(w.t.(*testing.T), c.master), termios(w.t.(*testing.T), fresh); got != want {
		w.t.Errorf("%v: the terminal has other settings:\n%+v\n%+v", c.cmd.Args[1:], got, want)
	}
}

// nodeNames are the names of all nodes.
func (w *week) nodeNames() []string {
	return strings.Fields(w.must("node", "list", "--columns", "name"))
}

// keyringItems are the items of the service in the keyring.
func (w *week) keyringItems() int {
	w.t.Helper()
	out, err := exec.Command("secret-tool", "search", "--all", "service", "rbee-vault").Output()
	if _, none := err.(*exec.ExitError); err != nil && !none {
		w.t.Fatal(err)
	}
	return bytes.Count(out, []byte("secret ="))
}

// checkLeft looks for files in the home directory that destroy has not named.
func (w *week) checkLeft(c *console) {
	w.t.Helper()
	err := filepath.WalkDir(w.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		named := strings.Contains(c.screen(), "Stays, empty: "+path)
		if data := w.read(path); named && data != "" || !named && filepath.Base(filepath.Dir(path)) != "backups" {
			w.t.Errorf("left: %s, %d bytes", path, len(data))
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}
