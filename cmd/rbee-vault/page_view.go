package main

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// layout is the list of nodes as a table whose columns fit the terminal.
type layout struct {
	table  *table
	texts  [][]string // of the rows, under the headers
	shown  []int
	widths map[int]int
}

// The columns left of the list: the mark of the chosen node.
const (
	mark   = "> "
	noMark = "  "
)

// frameHeight is how many lines are not the body: two above with the headers, two below.
const frameHeight = 5

// bodyHeight is how many lines the body has: rows of the list, or what is in its place.
func (p *fleetPage) bodyHeight() int { return max(p.height-frameHeight, 1) }

// layOut lays out the nodes that match the filter.
func (p *fleetPage) layOut() layout {
	t := newTable("NAME", "STATUS", "SEEN", "KEY", "PINS", "LABELS", "HOST", "NOTE")
	t.fitted = true
	t.dropFirst(tableOptions{}, "NOTE", "HOST", "LABELS")
	for _, n := range p.shown {
		key, pins := styled{"yes", lipgloss.NewStyle()}, styled{n.pins, lipgloss.NewStyle()}
		if !n.key {
			key = styled{"none", yellow}
		}
		if n.pins == 0 {
			pins.style = yellow
		}
		t.row(n.Name, n.Status, n.LastConnected, key, pins, registry.FormatLabels(n.Labels), n.SSHHost, n.Note)
	}
	l := layout{table: t, texts: t.texts(p.ui)}
	l.shown, l.widths = t.fit(l.texts, max(p.width-len(mark), minColumn))
	return l
}

// View implements [tea.Model].
func (p *fleetPage) View() tea.View {
	var lines []string
	lines = append(lines, p.title(), p.backups())
	if over := p.overlay(); over != nil {
		lines = append(lines, "")
		lines = append(lines, over[min(p.scrolled, len(over)):min(p.scrolled+p.bodyHeight(), len(over))]...)
	} else {
		lines = append(lines, p.list()...)
	}
	for len(lines) < p.height-2 {
		lines = append(lines, "")
	}
	last := p.lastLine()
	lines = append(lines, last, p.keyLine())
	for i, line := range lines {
		lines[i] = shortened(line, p.width)
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	if p.typing || p.asked != "" {
		v.Cursor = tea.NewCursor(min(lipgloss.Width(last), p.width-1), max(len(lines)-2, 0))
	}
	return v
}

// title says what is shown.
func (p *fleetPage) title() string {
	if p.fleet == nil {
		return "Reading the vault."
	}
	text := p.paint(lipgloss.NewStyle().Bold(true), p.fleet.counts())
	if p.filter != "" && !p.typing {
		text += fmt.Sprintf("; %d match %q", len(p.shown), p.filter)
	}
	if n := p.bodyHeight(); len(p.shown) > n && p.overlay() == nil {
		text += fmt.Sprintf(" (%d to %d of %d)", p.top+1, min(p.top+n, len(p.shown)), len(p.shown))
	}
	return text
}

// backups says in one line how the backups are.
func (p *fleetPage) backups() string {
	if p.fleet == nil {
		return ""
	}
	text, style := backupsLine(p.fleet.health)
	return "backups: " + p.paint(style, wire.Clean(text))
}

// backupsLine is the state of the backups: the first problem, or how old the newest is.
func backupsLine(h backup.Health) (string, lipgloss.Style) {
	switch n := len(h.Problems); {
	case n == 1:
		return h.Problems[0].Message + " (rbee-vault backup status)", red
	case n > 1:
		return fmt.Sprintf("%s, and %d more (rbee-vault backup status)", h.Problems[0].Message, n-1), red
	case h.Last == nil: // cannot be, but for a rule that is added one day
		return "none", yellow
	}
	return fmt.Sprintf("well; the newest is of %s ago, the proven restore of %s", ago(h.At.Sub(h.Last.AsOf())), provenText(h.Proven, h.At)), green
}

// list returns the headers and the visible nodes.
func (p *fleetPage) list() []string {
	switch {
	case p.fleet == nil:
		return nil
	case len(p.fleet.nodes) == 0:
		return []string{"", "There are no nodes yet. To add one: rbee-vault node add NAME ..."}
	case len(p.shown) == 0:
		return []string{"", "No node matches."}
	}
	l := p.layout
	lines := []string{noMark + l.table.line(p.ui, l.texts[0], nil, l.shown, l.widths)}
	for i := p.top; i < min(p.top+p.bodyHeight(), len(p.shown)); i++ {
		line := l.table.line(p.ui, l.texts[i+1], l.table.rows[i], l.shown, l.widths)
		if i == p.at {
			line = mark + p.paint(lipgloss.NewStyle().Reverse(true), ansi.Strip(line))
		} else {
			line = noMark + line
		}
		lines = append(lines, line)
	}
	return lines
}

// overlay returns what is shown in place of the list, nil for the list.
func (p *fleetPage) overlay() (lines []string) {
	switch {
	case p.helping:
		pairs := [][2]string{}
		for _, k := range pageKeys() {
			pairs = append(pairs, [2]string{k.name, k.long})
		}
		lines = p.ui.sectionLines([]section{{"", pairs}})
	case p.open != "" && p.fields == nil:
		return []string{"Reading " + wire.Clean(p.open) + "."}
	case p.open != "":
		lines = p.ui.sectionLines(p.fields)
	default:
		return nil
	}
	return strings.Split(ansi.Hardwrap(strings.Join(lines, "\n"), max(p.width, 1), true), "\n")
}

// lastLine is the line above the keys: a question, the filter, or a message.
func (p *fleetPage) lastLine() string {
	switch {
	case p.asked != "":
		return fmt.Sprintf("Check %s? It logs in and stores its status. [y/N] ", wire.Clean(p.asked))
	case p.typing:
		return fmt.Sprintf("filter: %s", p.filter)
	case p.failure != "":
		return p.paint(red, wire.Clean(p.failure))
	case p.message != "":
		return wire.Clean(p.message)
	}
	return p.paint(yellow, wire.Clean(p.notes.warning()))
}

// keyLine names the keys that matter now.
func (p *fleetPage) keyLine() string {
	switch {
	case p.asked != "":
		return "y yes  any other key no"
	case p.typing:
		return "enter keep  esc drop  up, down choose"
	}
	var names []string
	for _, k := range pageKeys() {
		if k.brief != "" {
			names = append(names, k.name+" "+k.brief)
		}
	}
	return p.paint(faint, strings.Join(names, "  "))
}

func (p *fleetPage) paint(s lipgloss.Style, text string) string { return string(p.ui.paint(s, text)) }
