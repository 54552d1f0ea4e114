package wire

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Line builds a JSON object, byte for byte as [Marshal] writes a struct of the same fields. It
// is for values of which there are very many: reflection would take most of their time. Begin with
// [NewLine].
type Line struct {
	buf []byte
	err error
}

// NewLine returns a Line that appends to buf.
func NewLine(buf []byte) Line { return Line{buf: append(buf, '{')} }

// Name begins a field. Its value follows.
func (l *Line) Name(name string) {
	l.comma('{')
	l.buf = append(l.buf, '"')
	l.buf = append(l.buf, name...)
	l.buf = append(l.buf, '"', ':')
}

// Text writes a field. Text that is not UTF-8 is [ErrInvalid].
func (l *Line) Text(name, value string) {
	l.Name(name)
	l.text(value)
}

// Nullable writes a field that is null if value is empty.
func (l *Line) Nullable(name, value string) {
	if value == "" {
		l.Null(name)
		return
	}
	l.Text(name, value)
}

// Null writes a field that is null.
func (l *Line) Null(name string) {
	l.Name(name)
	l.buf = append(l.buf, "null"...)
}

// Int writes a field.
func (l *Line) Int(name string, value int64) {
	l.Name(name)
	l.buf = strconv.AppendInt(l.buf, value, 10)
}

// Time writes a field as [FormatTime] formats it.
func (l *Line) Time(name string, value time.Time) {
	l.Name(name)
	l.buf = append(l.buf, '"')
	l.buf = value.UTC().AppendFormat(l.buf, timeFormat)
	l.buf = append(l.buf, '"')
}

// Hex writes a field of lower-case hex digits.
func (l *Line) Hex(name string, value []byte) {
	l.Name(name)
	l.buf = append(l.buf, '"')
	l.buf = hex.AppendEncode(l.buf, value)
	l.buf = append(l.buf, '"')
}

// Open begins a value with { or [.
func (l *Line) Open(bracket byte) { l.buf = append(l.buf, bracket) }

// Close ends what Open began.
func (l *Line) Close(bracket byte) { l.buf = append(l.buf, bracket) }

// Item writes a text in an array.
func (l *Line) Item(value string) {
	l.comma('[')
	l.text(value)
}

// Key begins a field whose name may be any text.
func (l *Line) Key(name string) {
	l.comma('{')
	l.text(name)
	l.buf = append(l.buf, ':')
}

// Value writes the text that follows Key.
func (l *Line) Value(value string) { l.text(value) }

// Number writes the number that follows Key.
func (l *Line) Number(value int64) { l.buf = strconv.AppendInt(l.buf, value, 10) }

// End ends the object and returns the buffer.
func (l *Line) End() ([]byte, error) { return append(l.buf, '}'), l.err }

// comma separates from what was written since the opening bracket.
func (l *Line) comma(open byte) {
	if l.buf[len(l.buf)-1] != open {
		l.buf = append(l.buf, ',')
	}
}

func (l *Line) text(s string) {
	l.buf = append(l.buf, '"')
	begun := len(l.buf)
	for i := 0; i < len(s); {
		n := plainLength(s[i:])
		l.buf = append(l.buf, s[i:i+n]...)
		if i += n; i == len(s) {
			break
		}
		if s[i] != '"' && s[i] != '\\' {
			l.unusual(s, begun)
			return
		}
		l.buf = append(l.buf, '\\', s[i])
		i++
	}
	l.buf = append(l.buf, '"')
}

// unusual writes a text with characters that are not ASCII, or control characters, in place of
// what was written since the quote.
func (l *Line) unusual(s string, begun int) {
	if !utf8.ValidString(s) {
		l.err = fmt.Errorf("%w: not UTF-8", ErrInvalid)
		return
	}
	quoted, err := Marshal(s)
	if err != nil {
		l.err = err
		return
	}
	l.buf = append(l.buf[:begun-1], quoted...)
}

// plainLength is how many of the first bytes JSON has as they are.
func plainLength(s string) int {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// Scan reads what [Line] wrote, in the same order. It knows ASCII texts only: for anything else
// it fails, and the caller uses a parser that knows all of JSON. Texts share the memory of the
// line.
type Scan struct {
	rest   string
	failed bool
}

// NewScan begins to read an object.
func NewScan(line string) *Scan {
	s := &Scan{rest: line}
	s.Literal("{")
	return s
}

// Literal reads this text.
func (s *Scan) Literal(text string) {
	if !s.Try(text) {
		s.failed = true
	}
}

// Try reads this text, if it is next.
func (s *Scan) Try(text string) bool {
	rest, ok := strings.CutPrefix(s.rest, text)
	s.rest = rest
	return ok
}

// Text reads a text.
func (s *Scan) Text() string {
	if !s.Try(`"`) {
		s.failed = true
		return ""
	}
	n := plainLength(s.rest)
	text := s.rest[:n]
	s.rest = s.rest[n:]
	if s.Try(`"`) {
		return text
	}
	return s.escaped([]byte(text))
}

// escaped reads the rest of a text that has quotes or backslashes.
func (s *Scan) escaped(text []byte) string {
	for !s.Try(`"`) {
		n := plainLength(s.rest)
		text = append(text, s.rest[:n]...)
		s.rest = s.rest[n:]
		switch {
		case s.Try(`\"`):
			text = append(text, '"')
		case s.Try(`\\`):
			text = append(text, '\\')
		case n == 0:
			s.failed = true
			return ""
		}
	}
	return string(text)
}

// Nullable reads a text or null, which is "".
func (s *Scan) Nullable() string {
	if s.Try("null") {
		return ""
	}
	text := s.Text()
	if text == "" {
		s.failed = true
	}
	return text
}

// Int reads a number of at most 18 digits.
func (s *Scan) Int() int64 {
	end := 0
	for end < len(s.rest) && '0' <= s.rest[end] && s.rest[end] <= '9' {
		end++
	}
	if end == 0 || end > 18 || end > 1 && s.rest[0] == '0' {
		s.failed = true
		return 0
	}
	n, _ := strconv.ParseInt(s.rest[:end], 10, 64)
	s.rest = s.rest[end:]
	return n
}

// Time reads a time as [Line.Time] writes it.
func (s *Scan) Time() time.Time {
	t, err := ParseTime(s.Text())
	if err != nil {
		s.failed = true
	}
	return t
}

// Failed reports whether anything was not as expected.
func (s *Scan) Failed() bool { return s.failed }

// End reads the end of the object and of the line. It reports whether all was as expected.
func (s *Scan) End() bool {
	s.Literal("}")
	return !s.failed && s.rest == ""
}
