package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// pageCommand is a run of rbee-vault that has the terminal. Meanwhile the page holds neither the
// terminal nor the vault.
type pageCommand struct {
	args   []string
	stay   bool // what it prints stays until a key, also where it has succeeded
	flags  []string
	reader pageReader
	away   *atomic.Bool

	in       io.Reader
	out, err io.Writer
}

var _ tea.ExecCommand = (*pageCommand)(nil)

// run runs a command, and says afterwards that it is done.
func (p *fleetPage) run(c *pageCommand, done string) tea.Cmd {
	c.flags, c.reader, c.away = p.flags, p.reader, p.away
	return tea.Exec(c, func(err error) tea.Msg {
		if err != nil {
			return doneMsg{strings.Join(c.args, " ") + ": " + err.Error()}
		}
		return doneMsg{done}
	})
}

// SetStdin implements [tea.ExecCommand].
func (c *pageCommand) SetStdin(r io.Reader) { c.in = r }

// SetStdout implements [tea.ExecCommand].
func (c *pageCommand) SetStdout(w io.Writer) { c.out = w }

// SetStderr implements [tea.ExecCommand].
func (c *pageCommand) SetStderr(w io.Writer) { c.err = w }

// Run implements [tea.ExecCommand]. Keys that interrupt are for the command, and a signal that
// ends the page ends the command first.
func (c *pageCommand) Run() error {
	c.away.Store(true)
	defer c.away.Store(false)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := c.reader.release(); err != nil {
		return fmt.Errorf("close the vault: %w", err)
	}
	defer c.reader.resume()
	readAnswers(c.in, c.out)
	stopped, err := c.runIn(signals)
	if stopped || err == nil && !c.stay {
		return err
	}
	if err != nil {
		fmt.Fprintf(c.out, "\n%s: %v.", c.args[0], err)
	}
	c.waitForKey(signals)
	return err
}

// runIn runs the command on the terminal, and reports whether a signal was to end the page.
func (c *pageCommand) runIn(signals <-chan os.Signal) (stopped bool, err error) {
	program, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(program, slices.Concat(c.flags, c.args)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.in, c.out, c.err
	if err := cmd.Start(); err != nil {
		return false, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if ends(s) { // the terminal sends it the others
				stopped = true
				cmd.Process.Signal(s)
			}
		case err := <-ended:
			fmt.Fprint(c.out, endPasteMode)
			dropKeys(c.in)
			if err != nil {
				err = statusOf(err)
			}
			return stopped, err
		}
	}
}

// dropKeys drops what was typed for a command that has not read it.
func dropKeys(in io.Reader) {
	if f, ok := in.(*os.File); ok {
		unix.IoctlSetInt(int(f.Fd()), unix.TCFLSH, unix.TCIFLUSH)
	}
}

// endPasteMode ends the bracketed paste of a shell on a node, which may be gone without it.
const endPasteMode = "\x1b[?2004l"

// ends reports whether a signal ends the page while a command has the terminal.
func ends(s os.Signal) bool { return s == syscall.SIGTERM || s == syscall.SIGHUP }

// keyPoll is how long a wait for a key goes on behind a signal.
const keyPoll = 100 * time.Millisecond

// waitForKey asks for a key, and waits for it, or for a signal that ends the page.
func (c *pageCommand) waitForKey(signals <-chan os.Signal) {
	f, ok := c.in.(*os.File)
	if !ok {
		return
	}
	state, err := term.MakeRaw(int(f.Fd())) // before the question, so that Ctrl-C is a key
	if err != nil {
		return
	}
	defer term.Restore(int(f.Fd()), state)
	fmt.Fprint(c.out, "\r\nPress a key to go back to the page.")
	defer fmt.Fprint(c.out, "\r\n")
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	for {
		select {
		case s := <-signals:
			if ends(s) {
				return
			}
		default:
		}
		n, err := unix.Poll(fds, int(keyPoll/time.Millisecond))
		if err != nil && err != unix.EINTR {
			return
		}
		if err == nil && n > 0 {
			f.Read(make([]byte, 256)) // all of a key that sends several bytes
			return
		}
	}
}

// primaryAttributes asks a terminal what it is, and attributes is its answer.
const primaryAttributes = "\x1b[c"

var attributes = regexp.MustCompile(`\x1b\[\?[0-9;]*c`)

// answerWait is how long a terminal may take for it.
const answerWait = 2 * time.Second

// readAnswers reads what a terminal far away still answers to the page: the next program would
// take it for keys. A terminal answers in order, so it is asked for something that all of them
// answer.
func readAnswers(in io.Reader, out io.Writer) {
	f, ok := in.(*os.File)
	if !ok {
		return
	}
	state, err := term.MakeRaw(int(f.Fd())) // so that answers are not shown, and come without a new line
	if err != nil {
		return
	}
	defer term.Restore(int(f.Fd()), state)
	if _, err := io.WriteString(out, primaryAttributes); err != nil {
		return
	}
	var answers []byte
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	for end := time.Now().Add(answerWait); !attributes.Match(answers); {
		left := time.Until(end)
		if left <= 0 {
			return
		}
		n, err := unix.Poll(fds, int(left/time.Millisecond)+1)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		part := make([]byte, 256)
		read, err := f.Read(part)
		if err != nil {
			return
		}
		if answers = append(answers, part[:read]...); bytes.IndexByte(answers, 0x03) >= 0 {
			return // Ctrl-C: somebody does not want to wait
		}
	}
}
