package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// update writes the golden screens anew.
var update = flag.Bool("update", false, "write the golden screens of tables")

// fleetTable is a table as "node list --wide" prints it.
func fleetTable(t *testing.T, o tableOptions) *table {
	t.Helper()
	list, err := listOptions{tableOptions: o, wide: true}.nodeTable()
	if err != nil {
		t.Fatal(err)
	}
	for i, status := range []registry.Status{registry.StatusOnline, registry.StatusOffline, registry.StatusError, registry.StatusUnknown} {
		seen := time.Now().Add(-time.Duration(i)*36*time.Hour - time.Minute)
		if i == 3 {
			seen = time.Time{}
		}
		list.row(fmt.Sprintf("hive-%d", 7+i), fmt.Sprintf("hive-%d.gpu.rack-3.example.org", 7+i), uint16(22), "ops", status, seen, "cuda=8 cpu", []string{"", "hive-7"}[i%2], "rack=3,zone=eu-central-1")
	}
	return list
}

// printed returns a table as a terminal of so many columns shows it, or a pipe.
func printed(t *testing.T, list *table, width int) string {
	t.Helper()
	var out bytes.Buffer
	u := newUI(t.Context(), &app{}, &out, &out)
	u.pretty, u.size = width > 0, func() (int, int) { return width, 24 }
	u.table(list)
	if err := u.flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestTableFits: no line is wider than the terminal, and the golden screens show what stays.
func TestTableFits(t *testing.T) {
	for _, width := range []int{40, 60, 80, 160} {
		got := printed(t, fleetTable(t, tableOptions{}), width)
		for line := range strings.Lines(got) {
			if w := lipgloss.Width(strings.TrimSuffix(line, "\n")); w > width {
				t.Errorf("%d columns for %d: %s", w, width, line)
			}
		}
		golden := filepath.Join("testdata", fmt.Sprintf("table-%d.txt", width))
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || string(want) != got {
			t.Errorf("%d columns:\n%s\n%v", width, got, err)
		}
	}
}

// TestTableOptions: columns, order and headers are the operator's choice.
func TestTableOptions(t *testing.T) {
	for _, c := range []struct {
		o     tableOptions
		width int
		want  string
	}{
		{tableOptions{columns: []string{"name", "status"}, sort: "name"}, 0, "hive-7\tonline\nhive-8\toffline\nhive-9\terror\nhive-10\tunknown\n"},
		{tableOptions{columns: []string{"name"}, sort: "-last-contact"}, 0, "hive-7\nhive-8\nhive-9\nhive-10\n"},
		{tableOptions{columns: []string{"name"}, sort: "last-contact", header: true}, 0, "NAME\nhive-10\nhive-9\nhive-8\nhive-7\n"},
		{tableOptions{columns: []string{"status", "jump"}, sort: "status", noHeader: true}, 80, "error    -\noffline  hive-7\nonline   -\nunknown  hive-7\n"},
		{tableOptions{columns: []string{"name", "host"}}, 24, "NAME     HOST\nhive-7   hive-7.gpu.rac…\nhive-8   hive-8.gpu.rac…\nhive-9   hive-9.gpu.rac…\nhive-10  hive-10.gpu.ra…\n"},
	} {
		if got := printed(t, fleetTable(t, c.o), c.width); got != c.want {
			t.Errorf("%+v:\n%s\nwant\n%s", c.o, got, c.want)
		}
	}
	for _, o := range []tableOptions{{columns: []string{"nme"}}, {sort: "-nme"}} {
		_, err := listOptions{tableOptions: o}.nodeTable()
		if !isUsage(err) || !strings.Contains(hint(err, ""), "name?") || !strings.Contains(hint(err, ""), "last-contact") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
