package wire

import (
	"fmt"
	"time"
)

// timeFormat is RFC 3339 in UTC with milliseconds, the precision of stored
// times: it sorts as text and loses nothing.
const timeFormat = "2006-01-02T15:04:05.000Z"

// FormatTime gives a time as all JSON and messages have it.
func FormatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// ParseTime parses what [FormatTime] gives, and nothing else. The error matches
// [ErrInvalid].
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeFormat, s)
	if err != nil || FormatTime(t) != s {
		return time.Time{}, fmt.Errorf("%w: a time reads like %s", ErrInvalid, timeFormat)
	}
	return t, nil
}
