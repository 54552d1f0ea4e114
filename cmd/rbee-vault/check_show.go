package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// checkJSON is a line of check --json.
type checkJSON struct {
	Node      string          `json:"node"`
	Outcome   string          `json:"outcome"`
	Status    registry.Status `json:"status"`
	Error     *string         `json:"error"`
	Hint      *string         `json:"hint"`
	At        *string         `json:"at"`
	HostKey   *keyNameJSON    `json:"host_key"`
	Machine   *machineJSON    `json:"machine"`
	Duration  int64           `json:"duration_ms"`
	CheckedAt string          `json:"checked_at"`
}

// keyNameJSON names a host key.
type keyNameJSON struct {
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"`
}

// machineJSON is what a machine has.
type machineJSON struct {
	OS       string              `json:"os"`
	CPU      string              `json:"cpu"`
	CPUs     uint32              `json:"cpus"`
	Memory   uint64              `json:"memory_bytes"`
	DiskFree uint64              `json:"disk_free_bytes"`
	Backends []string            `json:"backends"`
	Devices  map[string]uint32   `json:"devices"`
	Found    map[string][]string `json:"found"`
}

func (r checked) json() checkJSON {
	j := checkJSON{
		Node: r.Node, Outcome: outcomeName(r.Outcome), Status: r.status,
		Error: wire.Nullable(r.cause()), Hint: wire.Nullable(r.hint()),
		Duration: r.Took.Milliseconds(), CheckedAt: wire.FormatTime(r.at),
	}
	if !r.good() {
		j.At = &r.At
	}
	if r.Key != nil {
		j.HostKey = &keyNameJSON{r.Key.Type(), ssh.FingerprintSHA256(r.Key)}
	}
	if m := r.machine; m != nil {
		backends, devices := m.Backends()
		j.Machine = &machineJSON{m.OS, m.CPU, m.CPUs, m.Memory, m.Disk, backends, devices, m.Devices}
	}
	return j
}

// outcomeName is the name of an outcome in JSON.
func outcomeName(o hive.Outcome) string {
	return strings.ReplaceAll(strings.ToLower(string(o)), " ", "_")
}

// cause says why a node is not online, or was not asked what it has; "" if all is well.
func (r checked) cause() string {
	if err := cmp.Or(r.Err, r.discoverErr); err != nil {
		return causeOf(err, r.Node)
	}
	return ""
}

// causeOf is the text of an error that stands beside the name of a node.
func causeOf(err error, node string) string {
	if at, ok := errors.AsType[*hive.Error](err); ok && at.Node == node {
		err = at.Err
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// hint returns the next step, or "".
func (r checked) hint() string { return fillHint(outcomeHints[r.Outcome], r.At, r.Key, r.pinned) }

// fillHint names the node and the keys in a hint of outcomeHints.
func fillHint(hint, node string, key ssh.PublicKey, pinned []registry.HostKey) string {
	if key != nil {
		old := pinnedOfType(pinned, key.Type())
		if old == "" {
			hint = strings.ReplaceAll(hint, " --replace PINNED", "")
		}
		hint = strings.NewReplacer("FINGERPRINT", ssh.FingerprintSHA256(key), "PINNED", old).Replace(hint)
	}
	return strings.ReplaceAll(hint, "NODE", node)
}

// same reports whether two rounds showed the same of a node.
func (r checked) same(other checked) bool {
	return r.Outcome == other.Outcome && r.At == other.At && r.cause() == other.cause()
}

// progress shows how far a round has come: in a table, or where the terminal or the command
// is not made for one, by a count. report is safe for concurrent use. end removes it all,
// unless ctx has ended: then the table stays, as the only result.
func (c *checker) progress(ctx context.Context, names []string) (report func(i int, r checked), end func()) {
	if c.live && len(c.last) == 0 { // a watch prints changes afterwards
		if l := c.liveTable(names); l != nil {
			return func(i int, r checked) {
					l.set(i, statusStyle(r.status), names[i], cmp.Or(string(r.Outcome), "-"), string(r.status), c.app.ui.cell(r.Took), r.cause())
				}, func() {
					if ctx.Err() == nil {
						l.erase()
					}
				}
		}
	}
	count, end := c.app.ui.count("check")
	var mu sync.Mutex // guards done and the bar
	done := int64(0)
	return func(int, checked) {
		mu.Lock()
		defer mu.Unlock()
		if done++; count != nil {
			count(done, int64(len(names)))
		}
	}, end
}

func (c *checker) liveTable(names []string) *live {
	widths := []int{len("NODE"), len("checking"), len("unknown"), len("10.000s")}
	for o := range outcomeHints {
		widths[1] = max(widths[1], len(o))
	}
	var rows []liveRow
	for _, name := range names {
		widths[0] = max(widths[0], len(name))
		rows = append(rows, liveRow{cells: []string{name, "checking", "", "", ""}, style: lipgloss.NewStyle().Faint(true)})
	}
	return c.app.ui.live([]string{"NODE", "OUTCOME", "STATUS", "TOOK", "CAUSE"}, widths, rows)
}

// show prints all results.
func (c *checker) show(results []checked) error {
	u := c.app.ui
	if c.app.json {
		return changedOf(u, results, checked.json)
	}
	t := newTable("NODE", "OUTCOME", "STATUS", "TOOK", "BACKENDS", "CAUSE")
	if u.pretty && !c.opts.discover {
		t.shown = slices.Delete(t.shown, 4, 5)
	}
	for _, r := range results {
		t.row(r.Node, styled{r.Outcome, statusStyle(r.status)}, r.status, r.Took, r.backends(), r.cause())
	}
	u.table(t)
	for _, r := range results {
		if r.machine != nil {
			u.info("%s: %s", r.Node, machineText(*r.machine))
		}
	}
	c.showHints(results)
	return nil
}

// backends returns what the machine has as backends, or "".
func (r checked) backends() string {
	if r.machine == nil {
		return ""
	}
	var n registry.Node
	n.Backends, n.Devices = r.machine.Backends()
	return backendsText(n)
}

// machineText describes a machine.
func machineText(m hive.Machine) string {
	parts := []string{m.OS, fmt.Sprintf("%d CPUs (%s)", m.CPUs, cmp.Or(m.CPU, "unknown"))}
	parts = append(parts, fmt.Sprintf("%d GB memory", m.Memory/1e9), fmt.Sprintf("%d GB disk free", m.Disk/1e9))
	for _, backend := range []string{hive.BackendCUDA, hive.BackendROCm, hive.BackendMetal} {
		parts = append(parts, m.Devices[backend]...)
	}
	return strings.Join(parts, "; ")
}

// showHints prints the next steps. Those that are not about a key are printed once for all
// nodes with that outcome.
func (c *checker) showHints(results []checked) {
	var order []hive.Outcome
	nodes := map[hive.Outcome][]string{}
	keys := map[string]bool{} // nodes whose key has its hint
	for _, r := range results {
		switch {
		case r.Key != nil && !keys[r.At]:
			keys[r.At] = true
			c.app.ui.info("%s: %s: %s\n  %s", r.At, r.Outcome, ssh.FingerprintSHA256(r.Key), r.hint())
			if r.firstContact() && !c.app.interactive() {
				c.app.ui.info("  Or pin it now: --pin %s", ssh.FingerprintSHA256(r.Key))
			}
		case r.Key != nil || r.Outcome == hive.Online:
		default:
			if !slices.Contains(order, r.Outcome) {
				order = append(order, r.Outcome)
			}
			if !slices.Contains(nodes[r.Outcome], r.At) {
				nodes[r.Outcome] = append(nodes[r.Outcome], r.At)
			}
		}
	}
	for _, o := range order {
		names, node := someNames(nodes[o]), "NODE"
		if len(nodes[o]) == 1 {
			node = nodes[o][0]
		}
		c.app.ui.info("%s: %s\n  %s", o, names, fillHint(outcomeHints[o], node, nil, nil))
	}
}

// someNames joins names, of many only the first.
func someNames(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// showChanges prints the results that are not those of the round before.
func (c *checker) showChanges(results []checked) error {
	var changed []checked
	for _, r := range results {
		if !r.same(c.last[r.Node]) {
			changed = append(changed, r)
		}
	}
	if c.app.json || !c.app.ui.pretty {
		return c.show(changed)
	}
	for _, r := range changed {
		text := fmt.Sprintf("%s: %s, was %s", r.Node, r.Outcome, c.last[r.Node].Outcome)
		if cause := r.cause(); cause != "" {
			text += ": " + cause
		}
		c.app.ui.printf("%s  %s\n", r.at.Local().Format(time.TimeOnly), text)
	}
	c.showHints(changed)
	return nil
}
