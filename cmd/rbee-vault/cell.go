package main

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/maruel/natural"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// Cells that a person and a program see differently, or that are not text, besides
// [time.Time], [time.Duration] and numbers.
type (
	byteCount   int64     // 1.2 MB, or exactly
	fingerprint string    // of a key; it can be cut short
	day         time.Time // without its hours
	styled      struct {  // a value in a colour
		value any
		style lipgloss.Style
	}
)

// cell returns a cell's text, for a person or for a program.
func (u *ui) cell(c any) string {
	switch c := c.(type) {
	case time.Time:
		return u.age(c)
	case day:
		return dateOf(time.Time(c))
	case time.Duration:
		if u.pretty {
			return c.Round(time.Millisecond).String()
		}
		return strconv.FormatInt(c.Milliseconds(), 10)
	case styled:
		return u.cell(c.value)
	case byteCount:
		if u.pretty {
			return humanSize(int64(c))
		}
		return strconv.FormatInt(int64(c), 10)
	case string:
		return cmp.Or(c, "-")
	}
	return cmp.Or(fmt.Sprint(c), "-")
}

// dateOf returns the day of a time, "-" for the zero time.
func dateOf(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.DateOnly)
}

// age returns how long ago a time was, or in a pipe the time. The zero time is "never", or "-".
func (u *ui) age(t time.Time) string {
	switch {
	case t.IsZero() && u.pretty:
		return "never"
	case t.IsZero():
		return "-"
	case u.pretty:
		return ago(u.app.now().Sub(t))
	}
	return wire.FormatTime(t)
}

// ago returns a duration in the form for a person: 5m, 36h, 3d.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// humanSize returns a number of bytes in its largest unit.
func humanSize(n int64) string {
	size, unit := float64(n), "B"
	for _, larger := range []string{"kB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, larger
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", size, unit)
}

// compareCells compares two cells of a column.
func compareCells(a, b any) int {
	switch a := a.(type) {
	case time.Time:
		return a.Compare(b.(time.Time))
	case day:
		return time.Time(a).Compare(time.Time(b.(day)))
	case time.Duration:
		return cmp.Compare(a, b.(time.Duration))
	case byteCount:
		return cmp.Compare(a, b.(byteCount))
	}
	return natural.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

// cellStyle is the colour of a cell.
func cellStyle(c any) lipgloss.Style {
	switch c := c.(type) {
	case styled:
		return c.style
	case registry.Status:
		return statusStyle(c)
	}
	return lipgloss.NewStyle()
}

func statusStyle(s registry.Status) lipgloss.Style {
	switch s {
	case registry.StatusOnline:
		return green
	case registry.StatusOffline:
		return yellow
	case registry.StatusError:
		return red
	case registry.StatusUnknown:
		return faint
	}
	return lipgloss.NewStyle()
}
