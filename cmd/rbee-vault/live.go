package main

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"charm.land/lipgloss/v2"
	"golang.org/x/term"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// live is a table on a terminal whose rows change in place, while a job is under way. After
// each frame the cursor is at the beginning of the line below it, and no mode of the terminal
// is ever changed: whatever ends the command, the terminal stays usable.
type live struct {
	u       *ui
	headers []string
	widths  []int // of the columns; the last one has what is left

	mu    sync.Mutex // guards what follows
	rows  []liveRow
	drawn int // lines of the last frame
	width int // of the terminal then
}

type liveRow struct {
	cells []string
	style lipgloss.Style // of the cells but the first and the last
	done  bool
}

// live starts a table that begins with these rows. It returns nil where there is none: the
// output is not a terminal that can move its cursor, or there is to be none.
func (u *ui) live(headers []string, widths []int, rows []liveRow) *live {
	if u.screen == nil || u.app.quiet || u.app.json || u.app.debug || len(rows) == 0 {
		return nil
	}
	u.out.Flush()
	l := &live{u: u, headers: headers, widths: widths, rows: rows}
	l.draw()
	return l
}

// set changes a row, which is done with that.
func (l *live) set(i int, style lipgloss.Style, cells ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows[i] = liveRow{cells, style, true}
	l.draw()
}

// erase removes the table from the terminal.
func (l *live) erase() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if width, _ := terminalSize(l.u.screen); width == l.width {
		fmt.Fprintf(l.u.screen, "\x1b[%dA\r\x1b[J", l.drawn)
	}
}

// draw writes a frame in place of the last one, in one write.
func (l *live) draw() {
	width, height := terminalSize(l.u.screen)
	var b strings.Builder
	if l.drawn > 0 && width == l.width { // else its lines have moved, and it stays
		fmt.Fprintf(&b, "\x1b[%dA\r", l.drawn)
	}
	lines := l.frame(max(height-3, 1))
	for _, line := range lines {
		b.WriteString(lipgloss.NewStyle().Inline(true).MaxWidth(max(width-1, 1)).Render(line) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	l.drawn, l.width = len(lines), width
	l.u.screen.WriteString(b.String())
}

// frame returns the header and at most so many rows: where there are more, those from the
// first that is not done, and how many are.
func (l *live) frame(most int) []string {
	first, done := -1, 0
	for i, row := range l.rows {
		if row.done {
			done++
		} else if first < 0 {
			first = i
		}
	}
	lines := []string{l.line(l.headers, lipgloss.NewStyle().Bold(true), true)}
	rows := l.rows
	if len(rows) > most {
		from := min(max(first, 0), len(rows)-most)
		rows = rows[from : from+most]
	}
	for _, row := range rows {
		lines = append(lines, l.line(row.cells, row.style, false))
	}
	if len(rows) < len(l.rows) {
		lines = append(lines, fmt.Sprintf("%d of %d", done, len(l.rows)))
	}
	return lines
}

// line pads and colours the cells of a row.
func (l *live) line(cells []string, style lipgloss.Style, all bool) string {
	var b strings.Builder
	for i, cell := range cells {
		cell = wire.Clean(cell)
		if i < len(l.widths) {
			cell += strings.Repeat(" ", max(l.widths[i]-lipgloss.Width(cell), 0)+2)
		}
		if l.u.color && (all || 0 < i && i < len(l.widths)) {
			cell = style.Render(cell)
		}
		b.WriteString(cell)
	}
	return b.String()
}

// terminalSize returns columns and lines of a terminal, the usual ones where it has no size.
func terminalSize(f *os.File) (width, height int) {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}
