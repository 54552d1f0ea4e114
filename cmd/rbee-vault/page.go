package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// fleetPage is the page for the fleet: its state, which only Update changes.
type fleetPage struct {
	ctx    context.Context
	ui     *ui
	reader pageReader
	notes  *notes
	flags  []string     // that the commands of the page get
	away   *atomic.Bool // a command of the page has the terminal

	width, height int
	fleet         *fleet      // nil: not read yet
	shown         []fleetNode // those that match the filter
	layout        layout      // of them
	at, top       int         // the chosen node and the first visible one, of shown
	filter        string
	typing        bool   // of the filter
	asked         string // the node that a check is to be confirmed for, "" for none
	helping       bool   // all keys are shown
	open          string // the node whose fields are shown, "" for none
	fields        []section
	scrolled      int // lines of what is shown in place of the list
	message       string
	failure       string // why the fleet could not be read
	err           error  // what the page ends with
	panicked      string // what a command of ours panicked with
}

// lookInterval is the time between two looks at the vault.
const lookInterval = time.Second

// What the page is told, besides keys.
type (
	lookMsg  struct{}
	fleetMsg struct {
		fleet *fleet // nil: as before
		err   error
	}
	fieldsMsg struct {
		name   string
		fields []section
		err    error
	}
	doneMsg struct{ message string } // of a command that had the terminal
	stopMsg struct{}

	panicMsg struct{ text string }
)

func newFleetPage(ctx context.Context, u *ui, reader pageReader, n *notes, flags []string) *fleetPage {
	width, height := u.size()
	return &fleetPage{ctx: ctx, ui: u, reader: reader, notes: n, flags: flags, away: new(atomic.Bool), width: width, height: height}
}

// runFleetPage shows the page until a key or a signal ends it, and leaves the terminal as it was.
func runFleetPage(p *fleetPage, in, out *os.File) error {
	for _, name := range []string{"TEA_TRACE", "TEA_DEBUG"} {
		os.Unsetenv(name) // with them the library writes what it shows into files
	}
	program := tea.NewProgram(p, tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler())
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ended := make(chan struct{})
	defer close(ended)
	defer signal.Stop(signals)
	go func() {
		for {
			select {
			case s := <-signals:
				if s != os.Interrupt || !p.away.Load() { // else Ctrl-C was for the command
					program.Send(stopMsg{})
				}
			case <-ended:
				return
			}
		}
	}()
	_, err := program.Run()
	readAnswers(in, out)
	if errors.Is(err, tea.ErrProgramPanic) {
		return errPagePanic
	} else if err != nil {
		return err
	}
	if p.panicked != "" {
		fmt.Fprintln(p.notes.to, cleanLines(p.panicked))
	}
	return p.err
}

// Init implements [tea.Model].
func (p *fleetPage) Init() tea.Cmd { return p.look() }

// look reads the fleet if it has changed.
func (p *fleetPage) look() tea.Cmd {
	return guarded(func() tea.Msg {
		f, err := p.reader.look(p.ctx)
		return fleetMsg{f, err}
	})
}

// read reads the fields of a node.
func (p *fleetPage) read(name string) tea.Cmd {
	return guarded(func() tea.Msg {
		fields, err := p.reader.node(p.ctx, name)
		return fieldsMsg{name, fields, err}
	})
}

// guarded is a command whose panic ends the page in order: the library ends at once then, while
// it still reads the terminal.
func guarded(cmd tea.Cmd) tea.Cmd {
	return func() (msg tea.Msg) {
		defer func() {
			if cause := recover(); cause != nil {
				msg = panicMsg{fmt.Sprintf("%v\n%s", cause, debug.Stack())}
			}
		}()
		return cmd()
	}
}

// Update implements [tea.Model].
func (p *fleetPage) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		p.width, p.height = msg.Width, msg.Height
		p.arrange()
	case tea.KeyPressMsg:
		cmd = p.press(msg)
	case tea.PasteMsg:
		if p.typing {
			p.setFilter(p.filter + msg.Content)
		}
	case lookMsg:
		cmd = p.look()
	case fleetMsg:
		cmd = p.receive(msg)
	case fieldsMsg:
		p.receiveFields(msg)
	case doneMsg:
		p.message = msg.message
	case stopMsg:
		p.err = errStopped
		cmd = tea.Quit
	case panicMsg:
		p.err, p.panicked = errPagePanic, msg.text
		cmd = tea.Quit
	}
	return p, cmd
}

// receive takes what a look has found, and looks again after a while.
func (p *fleetPage) receive(msg fleetMsg) tea.Cmd {
	again := tea.Tick(lookInterval, func(time.Time) tea.Msg { return lookMsg{} })
	p.failure = ""
	if msg.err != nil {
		p.failure = msg.err.Error()
	}
	if msg.fleet != nil {
		p.fleet = msg.fleet
		if p.open != "" {
			again = tea.Batch(again, p.read(p.open))
		}
	}
	p.arrange() // in any case: times go on
	return again
}

// receiveFields takes the fields of the node that is shown. A node that has gone is closed.
func (p *fleetPage) receiveFields(msg fieldsMsg) {
	switch {
	case msg.name != p.open: // closed in between
	case errors.Is(msg.err, registry.ErrNotFound):
		p.open, p.fields = "", nil
		p.message = msg.name + " is not in the registry any longer."
	case msg.err != nil:
		p.message = msg.err.Error()
	case msg.fields != nil:
		p.fields = msg.fields
	}
}

// chosen returns the node that the keys are about, or "".
func (p *fleetPage) chosen() string {
	return cmp.Or(p.open, p.listed())
}

// listed returns the chosen node of the list, or "".
func (p *fleetPage) listed() string {
	if p.at < len(p.shown) {
		return p.shown[p.at].Name
	}
	return ""
}

// arrange applies the filter and lays the list out. The chosen node stays the same, where it
// is still shown.
func (p *fleetPage) arrange() {
	if p.fleet == nil {
		return
	}
	name := p.listed()
	words := strings.Fields(strings.ToLower(p.filter))
	p.shown = nil
	for _, n := range p.fleet.nodes {
		if n.matches(words) {
			p.shown = append(p.shown, n)
		}
	}
	if i := slices.IndexFunc(p.shown, func(n fleetNode) bool { return n.Name == name }); i >= 0 {
		p.at = i
	}
	p.layout = p.layOut()
	p.move(0)
}

// move chooses a node so many rows further down, and scrolls to it.
func (p *fleetPage) move(rows int) {
	p.at = max(min(p.at+rows, len(p.shown)-1), 0)
	height := p.bodyHeight()
	p.top = max(min(p.top, p.at, len(p.shown)-height), p.at-height+1, 0)
}
