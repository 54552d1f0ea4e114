package wire

import (
	"fmt"
	"time"
)

// timeFormat is RFC 3339 in UTC with milliseconds, the precision of stored times. Sorted as
// text, times are in order.
const timeFormat = "2006-01-02T15:04:05.000Z"

// FormatTime formats a time as all JSON and messages show it.
func FormatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// ParseTime parses exactly what [FormatTime] returns. The error matches [ErrInvalid].
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeFormat, s)
	if err != nil || FormatTime(t) != s {
		return time.Time{}, fmt.Errorf("%w: a time must look like %s", ErrInvalid, timeFormat)
	}
	return t, nil
}
