package main

import (
	"slices"

	tea "charm.land/bubbletea/v2"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// pageKey is what a key does.
type pageKey struct {
	keys  []string // as the terminal library names them
	name  string   // as the page names them
	brief string   // at the bottom of the page; "" for keys that are not there
	long  string
	do    func(*fleetPage) tea.Cmd
}

// pageKeys are the keys of the page, while nothing is typed.
func pageKeys() []pageKey {
	scroll := func(rows func(*fleetPage) int) func(*fleetPage) tea.Cmd {
		return func(p *fleetPage) tea.Cmd {
			p.scroll(rows(p))
			return nil
		}
	}
	all := func(p *fleetPage) int { return len(p.shown) + len(p.overlay()) }
	return []pageKey{
		{[]string{"enter"}, "enter", "show", "show all fields of the node", (*fleetPage).showNode},
		{[]string{"s"}, "s", "shell", "open a shell on the node, as `rbee-vault ssh` does", (*fleetPage).shell},
		{[]string{"c"}, "c", "check", "check the node, as `rbee-vault check` does, after a question", (*fleetPage).ask},
		{[]string{"/"}, "/", "filter", "filter as you type: words that a node's fields contain", (*fleetPage).startTyping},
		{[]string{"up", "k"}, "up, k", "", "the node above", scroll(func(*fleetPage) int { return -1 })},
		{[]string{"down", "j"}, "down, j", "", "the node below", scroll(func(*fleetPage) int { return 1 })},
		{[]string{"pgup", "ctrl+b"}, "page up", "", "a screen up", scroll(func(p *fleetPage) int { return -p.bodyHeight() })},
		{[]string{"pgdown", "ctrl+f", "space"}, "page down", "", "a screen down", scroll(func(p *fleetPage) int { return p.bodyHeight() })},
		{[]string{"home", "g"}, "home, g", "", "the first node", scroll(func(p *fleetPage) int { return -all(p) })},
		{[]string{"end", "G"}, "end, G", "", "the last node", scroll(all)},
		{[]string{"?"}, "?", "keys", "show these keys", (*fleetPage).help},
		{[]string{"esc"}, "esc", "", "back: close the node, drop the filter, leave the page", (*fleetPage).back},
		{[]string{"q"}, "q", "quit", "leave the page", func(*fleetPage) tea.Cmd { return tea.Quit }},
		{[]string{"ctrl+c"}, "ctrl-c", "", "leave the page at once (exit 130)", (*fleetPage).interrupt},
	}
}

// press takes a key. A question takes the next one, whichever it is.
func (p *fleetPage) press(msg tea.KeyPressMsg) tea.Cmd {
	key := msg.String()
	switch {
	case key == "ctrl+c":
		return p.interrupt()
	case p.asked != "":
		return p.answer(key)
	case p.typing:
		p.typed(key, msg.Text)
		return nil
	}
	p.message = ""
	for _, k := range pageKeys() {
		if slices.Contains(k.keys, key) {
			return k.do(p)
		}
	}
	return nil
}

func (p *fleetPage) interrupt() tea.Cmd {
	p.err = errStopped
	return tea.Quit
}

// back goes one step back, and from the list it leaves the page.
func (p *fleetPage) back() tea.Cmd {
	switch {
	case p.helping:
		p.helping, p.scrolled = false, 0
	case p.open != "":
		p.open, p.fields, p.scrolled = "", nil, 0
	case p.filter != "":
		p.setFilter("")
	default:
		return tea.Quit
	}
	return nil
}

func (p *fleetPage) help() tea.Cmd {
	p.helping, p.scrolled = !p.helping, 0
	return nil
}

// scroll moves in what is shown: the list, or what is in its place.
func (p *fleetPage) scroll(rows int) {
	lines := p.overlay()
	if lines == nil {
		p.move(rows)
		return
	}
	p.scrolled = max(min(p.scrolled+rows, len(lines)-p.bodyHeight()), 0)
}

func (p *fleetPage) showNode() tea.Cmd {
	name := p.chosen()
	if name == "" || p.helping || p.open != "" {
		return nil
	}
	p.open, p.fields, p.scrolled = name, nil, 0
	return p.read(name)
}

func (p *fleetPage) startTyping() tea.Cmd {
	p.helping, p.open, p.fields, p.scrolled = false, "", nil, 0
	p.typing = true
	return nil
}

// typed takes a key while the filter is typed.
func (p *fleetPage) typed(key, text string) {
	switch key {
	case "enter":
		p.typing = false
	case "esc":
		p.typing = false
		p.setFilter("")
	case "backspace", "ctrl+h":
		if r := []rune(p.filter); len(r) > 0 {
			p.setFilter(string(r[:len(r)-1]))
		}
	case "ctrl+u":
		p.setFilter("")
	case "up":
		p.move(-1)
	case "down":
		p.move(1)
	default:
		p.setFilter(p.filter + text)
	}
}

// maxFilter bounds what is typed or pasted.
const maxFilter = 200

// setFilter filters the list anew. Where the chosen node does not match, the first one is chosen.
func (p *fleetPage) setFilter(text string) {
	r := []rune(wire.Clean(text))
	p.filter = string(r[:min(len(r), maxFilter)])
	before := p.listed()
	p.arrange()
	if p.listed() != before {
		p.move(-p.at)
	}
}

// ask asks before a check: it logs in, and writes to the vault.
func (p *fleetPage) ask() tea.Cmd {
	name := p.chosen()
	if name == "" || p.helping {
		return nil
	}
	if p.ui.app.yes {
		return p.check(name)
	}
	p.asked = name
	return nil
}

func (p *fleetPage) answer(key string) tea.Cmd {
	name := p.asked
	p.asked = ""
	if key != "y" && key != "Y" {
		p.message = name + " was not checked."
		return nil
	}
	return p.check(name)
}

func (p *fleetPage) check(name string) tea.Cmd {
	return p.run(&pageCommand{args: []string{"check", name}, stay: true}, name+" was checked.")
}

func (p *fleetPage) shell() tea.Cmd {
	name := p.chosen()
	if name == "" || p.helping {
		return nil
	}
	return p.run(&pageCommand{args: []string{"ssh", name}}, "Back from "+name+".")
}
