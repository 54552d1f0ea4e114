package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPager: a table that is longer than the terminal goes to $PAGER, when the vault is open no
// longer. Without one that runs it is printed, and so it is where nobody is to be asked.
func TestPager(t *testing.T) {
	h := newHives(t)
	var lines strings.Builder
	for i := range 40 {
		fmt.Fprintf(&lines, `{"node_name":"n%d","ssh_host":"192.0.2.1","ssh_port":22,"ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt"}`+"\n", i+1)
	}
	fleet := filepath.Join(h.home, "fleet.jsonl")
	if err := os.WriteFile(fleet, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("node", "import", fleet)
	size := unix.Winsize{Row: 24, Col: 80}
	for name, c := range map[string]struct {
		pager string
		args  []string
		want  string // what the last line looks like
	}{
		"pager":     {"PAGER=rbee-vault rotate --no-input --wait 1s --quiet && sed s/^/paged:/", nil, `\npaged:n40 `},
		"no pager":  {"PAGER=", nil, `\nn40 `},
		"off":       {"PAGER=sed s/^/paged:/", []string{"--no-pager"}, `\nn40 `},
		"no input":  {"PAGER=sed s/^/paged:/", []string{"--no-input"}, `\nn40 `},
		"short":     {"PAGER=sed s/^/paged:/", []string{"n4*"}, `\nn40 `},
		"not there": {"PAGER=/nonexistent/pager", nil, `\nn40 `},
	} {
		t.Run(name, func(t *testing.T) {
			p := startOn(t, size, append(h.env, "TERM=xterm", c.pager), append([]string{"node", "list"}, c.args...)...)
			p.expect(c.want)
			if code := p.exit(); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if !strings.Contains(c.want, "paged") && strings.Contains(p.screen(), "paged:") {
				t.Error("paged")
			}
			if screen := p.screen(); strings.Count(screen, "NAME") != 1 {
				t.Errorf("printed twice:\n%s", screen)
			}
		})
	}
	c := startOn(t, size, append(h.env, "TERM=xterm", "PAGER=less"), "node", "list")
	c.expect(`n2[0-9] `)
	c.send("!")
	c.expect(`not available`)
	c.send("\nq")
	if code := c.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, c.screen())
	}
	// Ctrl-C is the pager's: it may go on.
	c = startOn(t, size, append(h.env, "TERM=xterm", "PAGER=trap 'echo goes on' INT; cat; echo ready; read x </dev/tty"), "node", "list")
	c.expect(`ready\n`)
	c.send("\x03\n") // whether the shell reads already or not
	c.expect(`goes on\n`)
	if code := c.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, c.screen())
	}
}
