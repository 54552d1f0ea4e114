package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// ui prints all that a person or a script sees. Data goes to standard output, everything
// else to standard error, and prompts to the terminal itself.
type ui struct {
	app     *app
	out     *bufio.Writer
	err     io.Writer
	tty     *os.File // opened when it is first needed
	noTTY   bool
	secrets *term.Terminal // reads passphrases from tty, without showing them
	pretty  bool           // standard output is a terminal
	color   bool           // that shows colours
	screen  *os.File       // that terminal, if it can move its cursor
	misfit  error          // why --format does not fit; the objects from there on are JSON
	paged   string         // a table that waits for the pager
	size    func() (width, height int)
}

func newUI(ctx context.Context, a *app, stdout, stderr io.Writer) *ui {
	u := &ui{app: a, out: bufio.NewWriter(newOutput(ctx, stdout)), err: newOutput(ctx, stderr)}
	u.size = func() (width, height int) { return 80, 24 }
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		u.pretty = true
		u.size = func() (width, height int) { return terminalSize(f) }
		if name := os.Getenv("TERM"); name != "" && name != "dumb" {
			u.screen = f
		}
		color, _ := a.hereSetting(settingColor) // configWithoutIdentities reports the error
		u.color = color.value != "never" && os.Getenv("TERM") != "dumb"
	}
	return u
}

// flush writes the data out, and reports a full disk or a closed pipe.
func (u *ui) flush() error {
	if err := u.out.Flush(); err != nil {
		return withHint(fmt.Errorf("write output: %w", err), "Output is lost. What the command had changed by then is done.")
	}
	return nil
}

// printf prints data as text. Its arguments are cleaned; only --json is exact.
func (u *ui) printf(format string, args ...any) { fmt.Fprintf(u.out, format, cleanArgs(args)...) }

// info prints what was done, unless --quiet or --json.
func (u *ui) info(format string, args ...any) {
	if !u.app.quiet && !u.app.json {
		u.out.Flush() // keeps the order of the output; an error is reported at the end
		fmt.Fprintf(u.err, format+"\n", cleanArgs(args)...)
	}
}

func (u *ui) warn(format string, args ...any) {
	message := fmt.Sprintf(format, cleanArgs(args)...)
	if u.app.exact() {
		u.errObject(struct {
			Warning messageJSON `json:"warning"`
		}{messageJSON{message}})
		return
	}
	fmt.Fprintf(u.err, "warning: %s\n", message)
}

type messageJSON struct {
	Message string `json:"message"`
}

type errorJSON struct {
	Code    int    `json:"code"`
	Name    string `json:"name"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// fail prints an error and returns its exit code.
func (u *ui) fail(err error) int {
	f := classify(err)
	message := wire.Clean(strings.ReplaceAll(err.Error(), "\n", "; ")) // errors.Join gives lines
	if f.code == exitInterrupted {
		message = "interrupted"
	}
	if u.app.exact() {
		u.errObject(struct {
			Error errorJSON `json:"error"`
		}{errorJSON{f.code, f.name, message, cleanLines(f.hint)}})
		return f.code
	}
	fmt.Fprintf(u.err, "rbee-vault: %s\n", message)
	if f.hint != "" {
		fmt.Fprintf(u.err, "  %s\n", cleanLines(f.hint))
	}
	return f.code
}

func (u *ui) errObject(v any) {
	if line, err := wire.Marshal(v); err == nil {
		fmt.Fprintf(u.err, "%s\n", escapeJSON(line))
	}
}

// cleanLines is [wire.Clean] for each line of a text that the command wrote.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = wire.Clean(line)
	}
	return strings.Join(lines, "\n")
}

// cleanArgs is [wire.Clean] for the arguments of a message: numbers stay, everything else
// becomes clean text.
func cleanArgs(args []any) []any {
	cleaned := make([]any, len(args))
	for i, arg := range args {
		switch arg.(type) {
		case int, int64, uint16, int32, float64, bool, painted:
			cleaned[i] = arg
		default:
			cleaned[i] = wire.Clean(fmt.Sprint(arg))
		}
	}
	return cleaned
}

// escapeJSON escapes the characters that JSON allows and a terminal would obey. They are
// only in strings, so the values stay the same.
func escapeJSON(line []byte) []byte {
	if !bytes.ContainsFunc(line, func(r rune) bool { return r >= 0x7f && wire.Control(r) }) {
		return line
	}
	var b bytes.Buffer
	for _, r := range string(line) {
		if r >= 0x7f && wire.Control(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}

// object prints a value as one line of JSON, or by the template of --format. A template that does
// not fit stops nothing: the object may tell of a change that was made. The command ends with
// that error.
func (u *ui) object(v any) error {
	line, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	if u.app.format != nil && u.misfit == nil {
		if u.misfit = u.formatted(line); u.misfit == nil {
			return nil
		}
	}
	fmt.Fprintf(u.out, "%s\n", escapeJSON(line))
	return nil
}

// checkRaw returns an error if standard output must not get raw data: it is a terminal,
// for which onTerminal is the message, or --json needs it.
func (u *ui) checkRaw(onTerminal string) error {
	switch {
	case u.pretty:
		return fmt.Errorf("%w: %s", vault.ErrInvalid, onTerminal)
	case u.app.json:
		return fmt.Errorf("%w: --json and '-o -' both need standard output", vault.ErrInvalid)
	}
	return nil
}

// objects prints each value of a list as a line of JSON, or by the template of --format. A
// template that does not fit ends it.
func objects[T any](u *ui, list []T) error {
	return objectsOf(u, list, func(v T) T { return v })
}

// objectsOf is objects for the JSON of each value.
func objectsOf[T, J any](u *ui, list []T, convert func(T) J) error {
	for _, v := range list {
		line, err := wire.Marshal(convert(v))
		if err != nil {
			return err
		}
		if u.app.format == nil {
			fmt.Fprintf(u.out, "%s\n", escapeJSON(line))
		} else if err := u.formatted(line); err != nil {
			return err
		}
	}
	return nil
}

// changed prints what was changed, each as [ui.object] does.
func changed[T any](u *ui, list []T) error {
	return changedOf(u, list, func(v T) T { return v })
}

// changedOf is changed for the JSON of each value.
func changedOf[T, J any](u *ui, list []T, convert func(T) J) error {
	for _, v := range list {
		if err := u.object(convert(v)); err != nil {
			return err
		}
	}
	return nil
}

// notNil returns the list as JSON should have it: [] if it is empty, not null.
func notNil[T any](list []T) []T { return append([]T{}, list...) }

// section is pairs under a title.
type section struct {
	title string
	pairs [][2]string
}

// sections prints sections whose values stand in one column. Without a title the pairs come
// first.
func (u *ui) sections(list []section) {
	for _, line := range u.sectionLines(list) {
		u.out.WriteString(line + "\n")
	}
}

// sectionLines returns the lines of sections, with clean values.
func (u *ui) sectionLines(list []section) (lines []string) {
	width := 0
	for _, s := range list {
		for _, p := range s.pairs {
			width = max(width, len(p[0]))
		}
	}
	for _, s := range list {
		indent := ""
		if s.title != "" {
			lines = append(lines, string(u.paint(lipgloss.NewStyle().Bold(true), s.title)))
			indent = "  "
		}
		for _, p := range s.pairs {
			lines = append(lines, fmt.Sprintf("%s%-*s  %s", indent, width+2-len(indent), p[0], wire.Clean(p[1])))
		}
	}
	return lines
}

// pairs prints names and values, one pair on a line.
func (u *ui) pairs(pairs [][2]string) {
	width := 0
	for _, p := range pairs {
		width = max(width, len(p[0]))
	}
	for _, p := range pairs {
		u.printf("%-*s  %s\n", width, p[0], p[1])
	}
}

var (
	green  = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	yellow = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))
	red    = lipgloss.NewStyle().Foreground(lipgloss.Color("1"))
	faint  = lipgloss.NewStyle().Faint(true)
)

// painted is text with colours that the command wrote: it is not cleaned.
type painted string

// paint colours a word, if the output has colours.
func (u *ui) paint(s lipgloss.Style, word string) painted {
	if !u.color {
		return painted(word)
	}
	return painted(s.Render(word))
}

// count returns a function that draws the progress of a long job, counted in things, and one
// that removes the bar. The bar appears after half a second, and on a terminal only.
func (u *ui) count(what string) (report func(done, total int64), end func()) {
	return u.bar(what, progressbar.OptionShowCount())
}

func (u *ui) bar(what string, show progressbar.Option) (report func(done, total int64), end func()) {
	f, ok := u.err.(*os.File)
	if u.app.quiet || u.app.json || !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	begun := time.Now()
	var bar *progressbar.ProgressBar
	report = func(done, total int64) {
		if bar == nil {
			if time.Since(begun) < 500*time.Millisecond {
				return
			}
			bar = progressbar.NewOptions64(total,
				progressbar.OptionSetWriter(f),
				progressbar.OptionSetDescription(what),
				show,
				progressbar.OptionClearOnFinish(),
			)
		}
		bar.Set64(done)
	}
	return report, func() {
		if bar != nil {
			bar.Finish()
		}
	}
}

// logger prints the log records of the packages: warnings always, the rest with --debug.
func (u *ui) logger() *slog.Logger { return slog.New(logHandler{u: u}) }

type logHandler struct {
	u     *ui
	attrs []slog.Attr
}

// Enabled implements [slog.Handler].
func (h logHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn || h.u.app.debug
}

// Handle implements [slog.Handler].
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	sep := " ("
	add := func(a slog.Attr) bool {
		fmt.Fprintf(&b, "%s%s %v", sep, a.Key, a.Value.Resolve())
		sep = ", "
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	if sep == ", " {
		b.WriteString(")")
	}
	if r.Level >= slog.LevelWarn {
		h.u.warn("%s", b.String())
	} else if !h.u.app.exact() {
		fmt.Fprintf(h.u.err, "debug: %s\n", wire.Clean(b.String()))
	}
	return nil
}

// WithAttrs implements [slog.Handler].
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return h
}

// WithGroup implements [slog.Handler].
func (h logHandler) WithGroup(string) slog.Handler { return h }

// terminal returns the controlling terminal, or nil. Prompts go there even if input and
// output are pipes.
func (u *ui) terminal() *os.File {
	if u.tty == nil && !u.noTTY {
		f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil || !term.IsTerminal(int(f.Fd())) {
			u.noTTY = true
			return nil
		}
		u.tty = f
	}
	return u.tty
}

// say prints a line on the terminal, where the prompts are.
func (u *ui) say(format string, args ...any) {
	if tty := u.terminal(); tty != nil {
		fmt.Fprintf(tty, format+"\n", cleanArgs(args)...)
	}
}

// ask prints a question on the terminal and reads a line.
func (u *ui) ask(ctx context.Context, question string) (string, error) {
	tty := u.terminal()
	if tty == nil {
		return "", errNeedsFlag
	}
	u.out.Flush() // keeps the order of the output
	fmt.Fprint(tty, cleanLines(question))
	line, err := identity.Await(ctx, func() ([]byte, error) { return readTTYLine(tty) })
	if ctx.Err() != nil {
		fmt.Fprintln(tty)
	}
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimSpace(string(line)), nil
}

// askSecret is ask for a secret: the terminal stops showing what is typed before the
// question appears. The caller wipes the answer.
func (u *ui) askSecret(ctx context.Context, question string) ([]byte, error) {
	tty := u.terminal()
	if tty == nil {
		return nil, errNeedsFlag
	}
	u.out.Flush()
	state, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return nil, fmt.Errorf("hide what is typed: %w", err)
	}
	defer term.Restore(int(tty.Fd()), state)
	if u.secrets == nil {
		u.secrets = term.NewTerminal(tty, "") // kept, because it reads ahead
	}
	secret, err := identity.Await(ctx, func() ([]byte, error) {
		secret, err := u.secrets.ReadPassword(wire.Clean(question))
		if errors.Is(err, io.EOF) { // Ctrl-C, which sends no signal in raw mode
			err = context.Canceled
		}
		return []byte(secret), err
	})
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return secret, nil
}

// readTTYLine reads one line, byte by byte: text that is typed ahead belongs to the next
// question.
func readTTYLine(tty io.Reader) ([]byte, error) {
	var line []byte
	var b [1]byte
	for len(line) < 4096 {
		n, err := tty.Read(b[:])
		if n == 1 && b[0] == '\n' {
			return line, nil
		}
		line = append(line, b[:n]...)
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("too long")
}

// confirm asks whether to go on, unless --yes was given.
func (u *ui) confirm(ctx context.Context, question string) error {
	if u.app.yes {
		return nil
	}
	if !u.app.interactive() {
		return fmt.Errorf("%w, so --yes is needed: %s", errNeedsFlag, question)
	}
	yes, err := u.askYes(ctx, question)
	if err == nil && !yes {
		err = errDeclined
	}
	return err
}

// few is how many things are confirmed by "y". Of more, a question quotes the first fewNames.
const (
	few      = 10
	fewNames = 5
)

// confirmMany is confirm for so many things at once. For more than a few of them their number
// is to be typed.
func (u *ui) confirmMany(ctx context.Context, question string, n int) error {
	if n <= few || u.app.yes || !u.app.interactive() {
		return u.confirm(ctx, question)
	}
	answer, err := u.ask(ctx, fmt.Sprintf("%s Type %d to go on: ", question, n))
	if err == nil && answer != strconv.Itoa(n) {
		err = errDeclined
	}
	return err
}

// fewOf joins names for a question: the first ones, and how many more there are.
func fewOf(names []string) string {
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:fewNames], ", "), len(names)-fewNames)
}

// askYes asks a question, and reports whether the answer is yes.
func (u *ui) askYes(ctx context.Context, question string) (bool, error) {
	answer, err := u.ask(ctx, question+" [y/N] ")
	if err != nil {
		return false, err
	}
	answer = strings.ToLower(answer)
	return answer == "y" || answer == "yes", nil
}
