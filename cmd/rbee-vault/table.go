package main

import (
	"math"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// tableOptions are the flags of a command that prints a table.
type tableOptions struct {
	columns  []string
	sort     string
	header   bool
	noHeader bool
	noPager  bool
}

// headers are those of all columns that the table can have, for the completion.
func (o *tableOptions) register(cmd *cobra.Command, headers ...string) {
	f := cmd.Flags()
	f.StringSliceVar(&o.columns, "columns", nil, "print these columns, in this order: `NAMES` of headers in small letters, joined by commas")
	f.StringVar(&o.sort, "sort", "", "sort by this `COLUMN`, numbers in text by their value; with '-' before it, the other way round")
	f.BoolVar(&o.header, "header", false, "print the headers in a pipe too")
	f.BoolVar(&o.noHeader, "no-header", false, "print no headers")
	f.BoolVar(&o.noPager, "no-pager", false, "never open $PAGER for a table that is longer than the terminal")
	cmd.MarkFlagsMutuallyExclusive("header", "no-header")
	var names []string
	for _, h := range headers {
		names = append(names, columnName(h))
	}
	cmd.RegisterFlagCompletionFunc("columns", func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		var lists []string
		for _, name := range names {
			if list := before + name; strings.HasPrefix(list, typed) && !slices.Contains(strings.Split(before, ","), name) {
				lists = append(lists, list)
			}
		}
		return lists, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
	cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// table is rows under headers. A cell is text, or one of the types that [ui.cell] knows: a
// person and a program see them differently.
type table struct {
	headers   []string
	shown     []int // columns, in their order
	droppable []int // columns that a terminal too narrow for all does without, in this order
	sort      int   // the column; -1: the rows stay as they are
	reverse   bool
	header    bool // in a pipe too
	noHeader  bool
	fitted    bool // no wider than the terminal
	asked     bool // the operator named the columns: they all stay
	pager     bool // if it is longer than the terminal
	rows      [][]any
}

// newTable returns a table that no flag changes, with all of its text.
func newTable(headers ...string) *table {
	t := &table{headers: headers, sort: -1}
	for i := range headers {
		t.shown = append(t.shown, i)
	}
	return t
}

// table returns a table as the flags want it. Without --columns it shows all columns but
// those of more; with it, any. It is called before the vault is opened, so that nobody
// unlocks it for a mistyped column.
func (o tableOptions) table(headers []string, more ...string) (*table, error) {
	t := newTable(slices.Concat(headers, more)...)
	t.shown = t.shown[:len(headers)]
	t.header, t.noHeader, t.fitted, t.pager = o.header, o.noHeader, true, !o.noPager
	if len(o.columns) > 0 {
		t.shown, t.asked = nil, true
	}
	for _, name := range o.columns {
		i, err := t.column("columns", name)
		if err != nil {
			return nil, err
		}
		t.shown = append(t.shown, i)
	}
	if o.sort != "" {
		name, reverse := strings.CutPrefix(o.sort, "-")
		i, err := t.column("sort", name)
		if err != nil {
			return nil, err
		}
		t.sort, t.reverse = i, reverse
	}
	return t, nil
}

// dropFirst names columns that a terminal too narrow for all does without, in this order.
// Columns that the operator asked for stay.
func (t *table) dropFirst(o tableOptions, headers ...string) {
	for _, h := range headers {
		if i := slices.Index(t.headers, h); len(o.columns) == 0 && i >= 0 {
			t.droppable = append(t.droppable, i)
		}
	}
}

// columnName is the name of a column for a flag.
func columnName(header string) string { return strings.ReplaceAll(strings.ToLower(header), " ", "-") }

func (t *table) column(flag, name string) (int, error) {
	var names []string
	for i, h := range t.headers {
		if columnName(h) == name {
			return i, nil
		}
		names = append(names, columnName(h))
	}
	err := usagef("--%s: there is no column %q", flag, name)
	return 0, withSuggestion(err, name, names, "The columns: "+strings.Join(names, ", "))
}

// row adds a row with a cell for each header. All cells of a column are of one type.
func (t *table) row(cells ...any) { t.rows = append(t.rows, cells) }

// table prints a table: on a terminal aligned, with headers, and no wider than it; in a pipe
// tab-separated and exact.
func (u *ui) table(t *table) {
	if t.sort >= 0 {
		slices.SortStableFunc(t.rows, func(a, b []any) int {
			if t.reverse {
				a, b = b, a
			}
			return compareCells(a[t.sort], b[t.sort])
		})
	}
	if !u.pretty {
		u.tabSeparated(t)
		return
	}
	width, height := u.size()
	lines := t.texts(u)
	shown, widths := t.fit(lines, width)
	var b strings.Builder
	for i, line := range lines {
		var row []any // nil: the headers
		if i += len(t.rows) - len(lines); i >= 0 {
			row = t.rows[i]
		}
		b.WriteString(t.line(u, line, row, shown, widths))
		b.WriteByte('\n')
	}
	if t.pager && len(lines) > height-1 && u.screen != nil && u.app.interactive() {
		u.paged += b.String()
		return
	}
	u.out.WriteString(b.String())
}

// texts returns the cells as a person sees them, under the headers.
func (t *table) texts(u *ui) [][]string {
	lines := make([][]string, 0, len(t.rows)+1)
	if !t.noHeader {
		lines = append(lines, t.headers)
	}
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = wire.Clean(u.cell(c))
		}
		lines = append(lines, cells)
	}
	return lines
}

// line pads and colours the texts of a row, or of the headers where row is nil.
func (t *table) line(u *ui, texts []string, row []any, shown []int, widths map[int]int) string {
	var b strings.Builder
	for at, column := range shown {
		style := lipgloss.NewStyle().Bold(true)
		if row != nil {
			style = cellStyle(row[column])
		}
		text := shortened(texts[column], widths[column])
		if at < len(shown)-1 {
			text += strings.Repeat(" ", widths[column]-lipgloss.Width(text)+gap)
		}
		b.WriteString(string(u.paint(style, text)))
	}
	return b.String()
}

func (u *ui) tabSeparated(t *table) {
	if t.header {
		t.rows = slices.Insert(t.rows, 0, anys(t.headers))
	}
	for _, row := range t.rows {
		for at, column := range t.shown {
			if at > 0 {
				u.out.WriteByte('\t')
			}
			u.out.WriteString(wire.Clean(u.cell(row[column])))
		}
		u.out.WriteByte('\n')
	}
}

func anys(texts []string) []any {
	list := make([]any, len(texts))
	for i, t := range texts {
		list[i] = t
	}
	return list
}

// Widths of columns.
const (
	gap          = 2
	goodColumn   = 16
	minColumn    = 8
	shortestHash = len("SHA256:") + 8
)

// fit chooses columns and their widths so that the lines are no wider than a terminal. First
// wide columns are shortened a little, but for the first one, which names the row; then columns
// go; then all are shortened. Where that is not enough, the last ones go.
func (t *table) fit(lines [][]string, width int) (shown []int, widths map[int]int) {
	for columns := t.shown; ; columns = columns[:len(columns)-1] {
		var excess int
		shown, widths, excess = t.fitColumns(lines, width, columns)
		if excess <= 0 || !t.fitted || t.asked || len(columns) == 1 {
			return shown, widths
		}
	}
}

// fitColumns is fit for some columns, the last of which do not go. excess is how much too wide
// they stay.
func (t *table) fitColumns(lines [][]string, width int, columns []int) (shown []int, widths map[int]int, excess int) {
	shown, widths = slices.Clone(columns), map[int]int{}
	for _, line := range lines {
		for _, c := range shown {
			widths[c] = max(widths[c], lipgloss.Width(line[c]))
		}
	}
	if !t.fitted {
		return shown, widths, 0
	}
	over := func() int {
		total := gap * (len(shown) - 1)
		for _, c := range shown {
			total += widths[c]
		}
		return total - width
	}
	t.shorten(shown, widths, goodColumn, over)
	for _, c := range t.droppable {
		if over() > 0 {
			shown = slices.DeleteFunc(shown, func(s int) bool { return s == c })
		}
	}
	t.shorten(shown, widths, minColumn, over)
	if excess := over(); excess > 0 {
		widths[shown[0]] = max(widths[shown[0]]-excess, minColumn)
	}
	return shown, widths, over()
}

// shorten makes the widest columns narrower, down to least, while the lines are too long.
func (t *table) shorten(shown []int, widths map[int]int, least int, over func() int) {
	for over() > 0 {
		widest := -1
		for _, c := range shown[1:] {
			if widths[c] > t.leastWidth(c, least) && (widest < 0 || widths[c] > widths[widest]) {
				widest = c
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

// leastWidth is how narrow a column can be. Times, numbers and words are short, and wrong when
// they are cut.
func (t *table) leastWidth(column, least int) int {
	if len(t.rows) > 0 {
		switch t.rows[0][column].(type) {
		case fingerprint:
			least = shortestHash
		case string:
		default:
			return math.MaxInt
		}
	}
	return max(least, len(t.headers[column]))
}

// shortened cuts a text to a width, and marks the cut.
func shortened(text string, width int) string { return ansi.Truncate(text, width, "…") }
