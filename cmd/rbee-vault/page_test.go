package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// pageTest is a page on a terminal whose screen can be looked at.
type pageTest struct {
	*console
	emulator *vt.Emulator
	fed      int                // bytes of the console that the emulator has got
	modes    map[ansi.Mode]bool // that were set or reset
}

// startPage starts the page on a terminal of this size, and answers what it asks the terminal.
func startPage(t *testing.T, width, height int, env []string, args ...string) *pageTest {
	t.Helper()
	p := &pageTest{
		console:  startOn(t, unix.Winsize{Row: uint16(height), Col: uint16(width)}, append(env, "TERM=xterm-256color"), append([]string{"ui"}, args...)...),
		emulator: vt.NewEmulator(width, height),
		modes:    map[ansi.Mode]bool{},
	}
	p.emulator.SetCallbacks(vt.Callbacks{
		EnableMode:  func(m ansi.Mode) { p.modes[m] = true },
		DisableMode: func(m ansi.Mode) { p.modes[m] = false },
	})
	go io.Copy(p.master, p.emulator)
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

// lines returns what the screen shows now.
func (p *pageTest) lines() []string {
	text := p.screen()
	p.emulator.WriteString(text[p.fed:])
	p.fed = len(text)
	lines := strings.Split(p.emulator.String(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \r")
	}
	return lines
}

// pageWait is how long a test waits for what the page should show.
const pageWait = 30 * time.Second

// shows waits until the screen has all of these texts, and none of those behind a "!".
func (p *pageTest) shows(texts ...string) {
	p.t.Helper()
	p.waits(func(screen string) (missing string) {
		for _, text := range texts {
			if unwanted, not := strings.CutPrefix(text, "!"); not == strings.Contains(screen, unwanted) {
				return text
			}
		}
		return ""
	})
}

// asks waits until the screen from before the page ends with a question that matches. An older
// question has its answer behind it.
func (p *pageTest) asks(pattern string) {
	p.t.Helper()
	end := regexp.MustCompile(`(?s:` + pattern + `)\s*$`)
	p.waits(func(screen string) (missing string) {
		if p.emulator.IsAltScreen() || !end.MatchString(screen) {
			return pattern
		}
		return ""
	})
}

// waits waits until nothing is missing on the screen.
func (p *pageTest) waits(look func(screen string) (missing string)) {
	p.t.Helper()
	for deadline := time.Now().Add(pageWait); ; time.Sleep(10 * time.Millisecond) {
		screen := "\n" + strings.Join(p.lines(), "\n") + "\n"
		missing := look(screen)
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the page never had %q:\n%s", missing, screen)
		}
	}
}

// What a shell and a command that has ended ask.
const (
	askPrompt = `[$#]`
	askKey    = `Press a key to go back to the page\.`
)

// resize gives the terminal another size.
func (p *pageTest) resize(width, height int) {
	p.t.Helper()
	p.lines()
	p.emulator.Resize(width, height)
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)}); err != nil {
		p.t.Fatal(err)
	}
}

// termios returns the settings of a terminal.
func termios(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *settings
}

// leaves waits for the end of the page, and looks whether the terminal is as it was before.
func (p *pageTest) leaves(want int) {
	p.t.Helper()
	kill := time.AfterFunc(pageWait, func() { p.cmd.Process.Kill() })
	deadline := time.After(2 * pageWait)
	for open := true; open; {
		select {
		case <-p.read:
			open = false
		case <-deadline:
			p.t.Fatalf("something still has the terminal open:\n%s", strings.Join(p.lines(), "\n"))
		case <-time.After(10 * time.Millisecond):
			p.lines() // so that the terminal answers
		}
	}
	code := p.exit()
	if !kill.Stop() || code != want {
		p.t.Errorf("exit code %d, want %d:\n%s", code, want, strings.Join(p.lines(), "\n"))
	}
	fresh, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer fresh.Close()
	if got, want := termios(p.t, p.master), termios(p.t, fresh); got != want {
		p.t.Errorf("the terminal has other settings:\n%+v\n%+v", got, want)
	}
	waitFor(p.t, "the screen from before", func() bool { p.lines(); return !p.emulator.IsAltScreen() })
	if p.emulator.CursorHidden() {
		p.t.Error("the cursor is hidden")
	}
	for mode, set := range p.modes {
		if want := mode == ansi.ModeTextCursorEnable || mode == ansi.ModeAutoWrap; set != want {
			p.t.Errorf("mode %v is %t", mode, set)
		}
	}
	if !p.modes[ansi.ModeTextCursorEnable] {
		p.t.Error("the page has not run")
	}
	// Reports of keys, which the emulator does not know.
	for set, reset := range map[string]string{"\x1b[>4;": "\x1b[>4m", "\x1b[=1;1u": "\x1b[=0;1u"} {
		if screen := p.screen(); strings.LastIndex(screen, set) > strings.LastIndex(screen, reset) {
			p.t.Errorf("%q has no %q behind it", set, reset)
		}
	}
}

// addNode adds a node that nothing answers for.
func (h *hives) addNode(name string, flags ...string) {
	h.t.Helper()
	h.must(append([]string{"node", "add", name, "--ssh-host", "192.0.2.7", "--ssh-user", "ops", "--git-repo", "https://example.org/r.git", "--install-path", "/opt"}, flags...)...)
}

// TestPage: what the page shows, what other processes change, and the filter.
func TestPage(t *testing.T) {
	h := newHives(t)
	p := startPage(t, 80, 24, h.env)
	p.shows("There are no nodes yet", "0 nodes", "backups: there is no backup yet")
	h.addNode("n10", "--label", "rack=3", "--label", "role=training")
	p.shows("1 node: 1 unknown", "\n> n10 ")
	h.addNode("n2", "--label", "rack=4", "--note", "slow disk", "--generate-key")
	p.shows("2 nodes: 2 unknown", "\n  n2 ", "\n> n10 ", "n2    unknown  never  yes   0     rack=4", "none  0     rack=3,role=training")
	if screen := strings.Join(p.lines(), "\n"); strings.Index(screen, "n2 ") > strings.Index(screen, "n10 ") {
		t.Errorf("n10 is before n2:\n%s", screen)
	}
	h.must("backup")
	p.shows("backups: no restore was ever tried out")
	p.send("/RACK=3 train")
	p.shows("\nfilter: RACK=3 train", "\n> n10 ", "!n2 ")
	p.send("x")
	p.shows("No node matches.")
	p.send("\x7f\r")
	p.shows("\n> n10 ", "; 1 match \"RACK=3 train\"")
	h.addNode("n11", "--label", "rack=3", "--label", "role=training")
	p.shows("; 2 match", "\n> n10 ", "\n  n11 ")
	p.send("j\r")
	p.shows("name            n11", "proxy jump", "last contact  never", "!rack=4")
	h.must("node", "update", "n11", "--note", "seen here")
	p.shows("note            seen here")
	h.must("node", "remove", "n11", "--yes")
	p.shows("n11 is not in the registry any longer.", "\n> n10 ")
	p.send("\x1b")
	p.shows("\n  n2 ", "!match")
	p.send("?")
	p.shows("page up", "drop the filter", "!n10")
	p.send("?")
	p.shows("> n10")
	h.must("node", "rename", "n2", "n3")
	p.shows("\n  n3 ", "\n> n10 ")
	p.send("/n10\r\r")
	p.shows("name            n10")
	p.send("\x1b") // closes the node, drops the filter, leaves
	p.shows("1 match", "!ssh user")
	p.send("\x1b")
	p.shows("!match")
	p.send("\x1b")
	p.leaves(exitOK)
}

// TestPageLeaves: however the page ends, the terminal is as it was.
func TestPageLeaves(t *testing.T) {
	h := newHives(t)
	h.addNode("hive-01")
	for name, c := range map[string]struct {
		keys   string
		signal syscall.Signal
		code   int
	}{
		"q":             {"q", 0, exitOK},
		"esc":           {"\x1b", 0, exitOK},
		"ctrl-c":        {"\x03", 0, exitInterrupted},
		"ctrl-c typing": {"/x\x03", 0, exitInterrupted},
		"ctrl-c asked":  {"c\x03", 0, exitInterrupted},
		"term":          {"", syscall.SIGTERM, exitInterrupted},
		"int":           {"", syscall.SIGINT, exitInterrupted},
		"hup":           {"/hi", syscall.SIGHUP, exitInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPage(t, 80, 24, h.env)
			p.shows("> hive-01")
			if !p.emulator.IsAltScreen() {
				t.Error("the page is not on a screen of its own")
			}
			p.send(c.keys)
			if c.signal != 0 {
				p.cmd.Process.Signal(c.signal)
			}
			p.leaves(c.code)
		})
	}
}

// TestPageNeedsTerminal: elsewhere it names the command for that.
func TestPageNeedsTerminal(t *testing.T) {
	h := newHives(t)
	h.expect(exitUsage, "rbee-vault node list", "ui")
	h.expect(exitUsage, "rbee-vault node list --json", "ui", "--json")
	size := unix.Winsize{Row: 24, Col: 80}
	for name, c := range map[string]*console{
		"no input": startOn(t, size, append(h.env, "TERM=xterm"), "ui", "--no-input"),
		"dumb":     startOn(t, size, append(h.env, "TERM=dumb"), "ui"),
		"pipe":     startConsole(t, append(h.env, "TERM=xterm"), "ui"),
		"piped in": startTerminal(t, size, append(h.env, "TERM=xterm"), "sh", "-c", "echo q | rbee-vault ui"),
		"identity": startOn(t, size, append(h.env, "TERM=xterm"), "ui", "--identity", "-"),
	} {
		if code := c.exit(); code != exitUsage {
			t.Errorf("%s: exit code %d", name, code)
		}
		if name != "identity" {
			c.expect(`rbee-vault node list`)
		}
		if strings.Contains(c.screen(), "\x1b") {
			t.Errorf("%s: %q", name, c.screen())
		}
	}
}

// TestPageSizes: narrow and wide terminals, and one that changes its size, with and without
// colours.
func TestPageSizes(t *testing.T) {
	h := newHives(t)
	for i := range 30 {
		h.addNode(fmt.Sprintf("hive-%d", i+1), "--label", "rack=3", "--note", "a note")
	}
	p := startPage(t, 60, 20, append(h.env, "NO_COLOR=1"))
	p.shows("> hive-1 ", "(1 to 15 of 30)", "rack=3", "? keys  q quit", "!a note")
	if strings.Contains(p.screen(), "\x1b[1m") || strings.Contains(p.screen(), "\x1b[3") {
		t.Error("there are colours")
	}
	p.send("G")
	p.shows("> hive-30", "(16 to 30 of 30)", "!hive-15 ")
	p.send("g")
	p.shows("> hive-1 ")
	p.send("\x1b[6~")
	p.shows("> hive-16")
	p.send("\r")
	p.shows("hive-16", "ssh user")
	p.send("G")
	p.shows("backends", "!labels")
	p.send("\x1b")
	p.resize(200, 60)
	p.shows("> hive-16", "\n  hive-1 ", "\n  hive-30", "192.0.2.7", "a note", "!of 30)")
	for _, size := range [][2]int{{100, 24}, {60, 20}, {20, 6}, {3, 2}, {80, 24}} {
		p.resize(size[0], size[1])
		p.shows("3")
	}
	p.shows("> hive-16", "? keys  q quit")
	p.send("q")
	p.leaves(exitOK)
}

// TestPageCheck: a check is confirmed, and stores what it found. The first contact's question
// is the command's own.
func TestPageCheck(t *testing.T) {
	h := newHives(t)
	h.must("ssh-key", "generate", "--comment", "rbee@test")
	server := sshdtest.Start(t, h.must("ssh-key", "show", "rbee@test"))
	h.add("hive-01", "rbee@test", server, false)
	p := startPage(t, 80, 24, h.env)
	p.shows("> hive-01", "unknown")
	p.send("c")
	p.shows("Check hive-01? It logs in and stores its status. [y/N]")
	p.send("n")
	p.shows("hive-01 was not checked.", "1 unknown")
	p.send("cy")
	p.asks(`First contact with hive-01.*pinned\? \[y/N]`)
	p.send("n\n")
	p.asks(`check: exit status 3\.\s+` + askKey)
	p.send("\x03") // is a key here
	p.shows("> hive-01", "check hive-01: exit status 3")
	p.send("cY")
	p.asks(`pinned\? \[y/N]`)
	p.send("y\n ") // the space is typed too early
	p.asks(`hive-01  online.*` + askKey)
	p.send(" ")
	p.shows("1 node: 1 online", "hive-01 was checked.", "yes  1 ")
	p.send("q")
	p.leaves(exitOK)
	if server.Log() == "" {
		t.Error("nobody logged in")
	}
}

// vaultFiles returns which files of the vault a process has open.
func vaultFiles(t *testing.T, pid int) (files []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.Contains(name, "beehives.db") {
			files = append(files, name)
		}
	}
	return files
}

// TestPageShell: a shell on a node has the terminal, Ctrl-C included, and the page comes back.
// While it is open, and while the page is, another process rotates the vault's key at once.
func TestPageShell(t *testing.T) {
	h, _ := oneHive(t)
	p := startPage(t, 80, 24, h.env)
	p.shows("> hive-01")
	if len(vaultFiles(t, p.cmd.Process.Pid)) == 0 {
		t.Error("the page has no vault open")
	}
	h.must("rotate")
	h.must("node", "update", "hive-01", "--label", "rack=1")
	p.shows("rack=1")
	p.send("s")
	p.asks(askPrompt)
	p.send("echo in $((40+2)); stty size\n")
	p.shows("in 42", "\n24 80")
	if files := vaultFiles(t, p.cmd.Process.Pid); len(files) > 0 {
		t.Errorf("the page has open: %v", files)
	}
	h.must("rotate")
	// What the shell has only begun to start would not get the interrupt.
	p.send(`sh -c 'trap "exit 5" INT; echo wai""ting; while :; do sleep 0.1; done'` + "\n")
	p.shows("\nwaiting")
	p.send("\x03")
	p.send("exit 0\n")
	p.shows("> hive-01", "Back from hive-01.", "rack=1")
	h.must("node", "update", "hive-01", "--label", "rack=2")
	p.shows("rack=2")
	p.send("s")
	p.asks(askPrompt)
	p.send("exit 7\n")
	p.asks(`ssh: exit status 7\.\s+` + askKey)
	p.send("x")
	p.shows("> hive-01", "ssh hive-01: exit status 7")
	p.send("s")
	p.asks(askPrompt)
	p.cmd.Process.Signal(syscall.SIGTERM) // ends ssh first
	p.leaves(exitInterrupted)
	h.wantEmpty()
}

// TestPageMany: a filter finds its nodes in a large fleet.
func TestPageMany(t *testing.T) {
	h := newHives(t)
	var lines strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&lines, `{"node_name":"n%d","ssh_host":"192.0.2.1","ssh_port":22,"ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt","labels":{"rack":"r%d"}}`+"\n", i+1, i%50)
	}
	file := filepath.Join(h.home, "fleet.jsonl")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("node", "import", file)
	p := startPage(t, 80, 24, h.env)
	p.shows("2000 nodes: 2000 unknown", "> n1 ", "\n  n2 ", "(1 to 19 of 2000)")
	p.send("G")
	p.shows("> n2000 ", "(1982 to 2000 of 2000)")
	p.send("/rack=r7 n19")
	p.shows("> n1908 ", "n1958 ", "!n2000")
	p.send("q\x7f\r") // q is a letter here
	p.shows(`; 2 match "rack=r7 n19"`)
	p.send("q")
	p.leaves(exitOK)
}

// fakeReader is a vault that shows what it is given, or panics.
type fakeReader struct {
	fleet    *fleet
	sections []section
}

func (r fakeReader) look(context.Context) (*fleet, error) {
	if r.fleet == nil {
		panic("a bug")
	}
	return r.fleet, nil
}

func (r fakeReader) node(context.Context, string) ([]section, error) { return r.sections, nil }
func (fakeReader) release() error                                    { return nil }
func (fakeReader) resume()                                           {}

// fakePage is a page that shows so many nodes, with a name and a note.
func fakePage(t testing.TB, count int, name, note string) *fleetPage {
	a := &app{}
	a.ui = newUI(t.Context(), a, io.Discard, io.Discard)
	a.ui.pretty, a.ui.color = true, true
	f := &fleet{}
	for i := range count {
		n := registry.Node{Name: name + strconv.Itoa(i+1), SSHHost: "h" + note, Note: note, Status: registry.StatusOnline, Labels: map[string]string{"rack": note}}
		f.nodes = append(f.nodes, fleetNode{Node: n, text: filterText(n)})
	}
	f.health.Problems = []backup.Problem{{Kind: backup.ProblemFailing, Message: "not written: " + note}}
	reader := fakeReader{f, []section{{"", [][2]string{{"note", note}}}}}
	p := newFleetPage(t.Context(), a.ui, reader, holdNotes(a.ui), nil)
	p.Update(tea.WindowSizeMsg{Width: 200, Height: 40})
	p.Update(p.look()())
	return p
}

// TestPageClean: whatever the vault, the network and the operator's clipboard hold, the page
// writes no control characters but those of colours and its own lines.
func TestPageClean(t *testing.T) {
	const evil = "a\x1b]0;x\x07b\u009b2Jc\u202ed\u2066e\r\nf\tg\x7fh\xff"
	p := fakePage(t, 3, evil, evil)
	views := map[string]func(){
		"list":    func() {},
		"message": func() { p.Update(doneMsg{evil}) },
		"failure": func() { p.Update(fleetMsg{err: errors.New(evil)}) },
		"warning": func() {
			p.Update(fleetMsg{})
			p.notes.hold()
			p.ui.warn("%s", evil)
			p.notes.Write([]byte("warning: " + evil))
		},
		"filter":  func() { p.typing = true; p.Update(tea.PasteMsg{Content: "a" + evil}) },
		"none":    func() { p.typing = false },
		"asked":   func() { p.setFilter(""); p.asked = evil },
		"node":    func() { p.asked, p.open = "", evil; p.Update(p.read(evil)()) },
		"reading": func() { p.fields = nil },
	}
	for _, name := range []string{"list", "message", "failure", "warning", "filter", "none", "asked", "node", "reading"} {
		views[name]()
		shown := p.View().Content
		plain := strings.ReplaceAll(regexp.MustCompile(`\x1b\[[\d;]*m`).ReplaceAllString(shown, ""), "\n", "")
		if strings.ContainsFunc(plain, wire.Control) || strings.Contains(plain, "\x7f") || !utf8.ValidString(plain) {
			t.Errorf("%s: %q", name, plain)
		}
		if lines := strings.Count(shown, "\n") + 1; lines != 40 {
			t.Errorf("%s has %d lines", name, lines)
		}
		if !strings.Contains(plain, "a?]0;x?b?2Jc?d?e") && name != "warning" {
			t.Errorf("%s does not have the text: %q", name, plain)
		}
	}
}

// TestPagePanic: a bug leaves the terminal as it was.
func TestPagePanic(t *testing.T) {
	master, slave := openTerminal(t)
	before := termios(t, slave)
	a := &app{}
	var errs bytes.Buffer
	a.ui = newUI(t.Context(), a, slave, &errs)
	p := newFleetPage(t.Context(), a.ui, fakeReader{}, holdNotes(a.ui), nil)
	shown := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(master).ReadString('\x1f') // the end
		shown <- text
	}()
	if err := runFleetPage(p, slave, slave); !errors.Is(err, errPagePanic) {
		t.Errorf("%v", err)
	}
	if !strings.Contains(errs.String(), "a bug\ngoroutine ") || !strings.Contains(errs.String(), "page_test.go") {
		t.Errorf("standard error has no cause: %s", &errs)
	}
	if after := termios(t, slave); after != before {
		t.Errorf("the terminal has other settings:\n%+v\n%+v", before, after)
	}
	slave.WriteString("\x1f")
	text := <-shown
	for set, reset := range map[string]string{"\x1b[?1049h": "\x1b[?1049l", "\x1b[?25l": "\x1b[?25h", "\x1b[?2004h": "\x1b[?2004l"} {
		if strings.LastIndex(text, set) > strings.LastIndex(text, reset) {
			t.Errorf("%q has no %q behind it: %q", set, reset, text)
		}
	}
}

// BenchmarkPageView draws a page of 2,000 nodes after a key, and lays it out for a filter.
func BenchmarkPageView(b *testing.B) {
	p := fakePage(b, 2000, "hive-", "behind the bastion")
	b.Run("view", func(b *testing.B) {
		for b.Loop() {
			p.move(1)
			p.View()
		}
	})
	b.Run("filter", func(b *testing.B) {
		for b.Loop() {
			p.setFilter("hive-1")
			p.setFilter("")
		}
	})
}

// TestPageLateAnswers: what a terminal far away answers late is not taken for keys by what comes
// next.
func TestPageLateAnswers(t *testing.T) {
	h := newHives(t)
	h.addNode("hive-01")
	c := startTerminal(t, unix.Winsize{Row: 24, Col: 80}, append(h.env, "TERM=xterm-256color"), "sh", "-c", "rbee-vault ui; echo behind; read line; echo \"got $line\"")
	c.expect(`\x1b\[\?2026\$p`)
	c.expect(`hive-01`)
	c.send("q")
	c.expect(`\x1b\[c`) // now the answers arrive
	c.send("\x1b[?2026;2$y\x1b[?0u\x1b[?62;4c")
	c.expect("behind")
	c.send("typed\n")
	c.expect(`got typed`)
	if code := c.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
