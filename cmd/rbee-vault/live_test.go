package main

import (
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// replay returns the lines that a terminal of this width shows after the text, and the
// column of the cursor. It fails for anything but what a live table writes.
func replay(t *testing.T, text string, width int) (lines []string, column int) {
	t.Helper()
	screen, row := [][]rune{{}}, 0
	sequence := regexp.MustCompile(`^\x1b\[(\d*)([AJKm])`)
	colours := regexp.MustCompile(`^\x1b\[[\d;]*m`)
	for text != "" {
		r := []rune(text)[0]
		if m := colours.FindString(text); m != "" {
			text = text[len(m):]
			continue
		}
		if m := sequence.FindStringSubmatch(text); m != nil {
			text = text[len(m[0]):]
			switch n, _ := strconv.Atoi(m[1]); m[2] {
			case "A":
				row -= max(n, 1)
			case "J":
				screen = append(screen[:row:row], screen[row][:min(column, len(screen[row]))])
			case "K":
				screen[row] = screen[row][:min(column, len(screen[row]))]
			}
			if row < 0 {
				t.Fatalf("the cursor goes above the first line")
			}
			continue
		}
		text = text[len(string(r)):]
		switch r {
		case '\x1b':
			t.Fatalf("an unknown sequence: %.20q", text)
		case '\r':
			column = 0
		case '\n':
			if row++; row == len(screen) {
				screen = append(screen, nil)
			}
		default:
			if column == width {
				t.Fatalf("a line is longer than the terminal: %q", string(screen[row]))
			}
			for len(screen[row]) <= column {
				screen[row] = append(screen[row], ' ')
			}
			screen[row][column] = r
			column++
		}
	}
	for _, line := range screen {
		lines = append(lines, strings.TrimRight(string(line), " "))
	}
	return lines, column
}

// expectScreen waits until the terminal shows a line that begins so.
func (c *console) expectScreen(width int, prefixes ...string) {
	c.t.Helper()
	waitFor(c.t, strings.Join(prefixes, ", "), func() bool {
		lines, _ := replay(c.t, c.whole(), width)
		text := "\n" + strings.Join(lines, "\n")
		for _, prefix := range prefixes {
			if !strings.Contains(text, "\n"+prefix) {
				return false
			}
		}
		return true
	})
}

// whole is what the terminal has shown, without a sequence at its end that is not complete.
func (c *console) whole() string {
	return regexp.MustCompile(`\x1b(\[[\d;]*)?$`).ReplaceAllString(c.screen(), "")
}

// gate is the address of a server that answers once it is opened.
func gate(t *testing.T, addr string) (port string, open func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	opened := make(chan struct{})
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				<-opened
				far, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				go func() {
					defer far.Close()
					io.Copy(far, near)
				}()
				io.Copy(near, far)
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, func() { close(opened) }
}

// TestCheckLive: on a terminal, rows change in place while others are still under way, and
// at the end there is one table.
func TestCheckLive(t *testing.T) {
	env, server, add := checkFleet(t)
	port, open := gate(t, server.Addr())
	add("down", "1")
	add("fast", server.Port)
	add("slow", port)
	for _, name := range []string{"fast", "slow"} {
		if code, _, stderr := command(t, env, "host-key", "trust", "fast", "--fingerprint", fingerprintOf(t, server.PublicFiles[0])); code != exitOK {
			t.Fatalf("%s: %s", name, stderr)
		}
	}
	const width = 60
	c := startOn(t, unix.Winsize{Row: 24, Col: width}, append(env, "TERM=xterm", "NO_COLOR="), "check")
	c.expectScreen(width, "NODE", "down  refused", "fast  online", "slow  checking")
	open()
	c.expect(`pinned\? \[y/N\] $`) // slow is at first contact
	c.send("y\n")
	if code := c.exit(); code != exitPartial {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	c.expectScreen(1000, "slow  online")
	lines, column := replay(t, c.whole(), 1000)
	text := strings.Join(lines, "\n")
	if strings.Count(text, "NODE") != 1 || strings.Contains(text, "checking") || column != 0 ||
		!strings.Contains(text, "\nfast  online   online   ") || !strings.Contains(text, "\ndown  refused  offline  ") {
		t.Errorf("column %d:\n%s", column, text)
	}
	if !strings.Contains(c.screen(), "\x1b[32m") {
		t.Error("there are no colours")
	}
}

// TestCheckLiveInterrupted: Ctrl-C leaves the terminal as it was, below the table. A terminal
// that is too small shows what fits, and NO_COLOR has no colours.
func TestCheckLiveInterrupted(t *testing.T) {
	env, server, add := checkFleet(t)
	port, _ := gate(t, server.Addr())
	add("down", "1")
	for _, name := range []string{"slow-1", "slow-2", "slow-3", "slow-4", "slow-5"} {
		add(name, port)
	}
	const width = 20
	c := startOn(t, unix.Winsize{Row: 6, Col: width}, append(env, "TERM=xterm", "NO_COLOR=1"), "check")
	c.expectScreen(width, "NODE    OUTCOME", "slow-1  checking", "slow-3  checking", "1 of 6")
	lines, _ := replay(t, c.whole(), width)
	if len(lines) > 6 {
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	before, err := unix.IoctlGetTermios(int(c.master.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	c.send("\x03")
	if code := c.exit(); code != exitInterrupted {
		t.Errorf("exit code %d:\n%s", code, c.screen())
	}
	c.expect(`interrupted\n$`)
	after, err := unix.IoctlGetTermios(int(c.master.Fd()), unix.TCGETS)
	if err != nil || *before != *after || before.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal has another mode: %v", err)
	}
	if strings.Contains(c.screen(), "\x1b[?") || regexp.MustCompile(`\x1b\[[\d;]*m`).MatchString(c.screen()) {
		t.Errorf("modes or colours:\n%q", c.screen())
	}
}

// TestCheckNotLive: nothing moves the cursor where the output is not for it.
func TestCheckNotLive(t *testing.T) {
	env, server, add := checkFleet(t)
	add("hive-01", server.Port)
	for _, row := range []struct {
		name string
		size unix.Winsize
		env  string
		args []string
	}{
		{"a pipe", unix.Winsize{}, "TERM=xterm", []string{"check", "--accept-new"}},
		{"a dumb terminal", unix.Winsize{Row: 24, Col: 80}, "TERM=dumb", []string{"check"}},
		{"JSON", unix.Winsize{Row: 24, Col: 80}, "TERM=xterm", []string{"check", "--json"}},
		{"quiet", unix.Winsize{Row: 24, Col: 80}, "TERM=xterm", []string{"check", "--quiet"}},
	} {
		c := startOn(t, row.size, append(env, row.env), row.args...)
		if code := c.exit(); code != exitOK {
			t.Errorf("%s: exit code %d:\n%s", row.name, code, c.screen())
		}
		if shown := c.screen() + c.stdout.String(); strings.ContainsAny(regexp.MustCompile(`\x1b\[[\d;]*m`).ReplaceAllString(shown, ""), "\x1b") {
			t.Errorf("%s: %q", row.name, shown)
		}
	}
}
