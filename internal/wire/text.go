package wire

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Control reports whether a terminal does not show the character as part of the text. These are
// control characters of both sets, line ends, and characters that change the writing direction.
// No text of a vault contains one.
func Control(r rune) bool {
	if r < 0x7f {
		return r < ' '
	}
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

// Clean makes a text safe for one cell, line or message. The result cannot control the
// terminal, begin another line, or change the writing direction. White space becomes a space;
// everything else becomes a question mark.
func Clean(s string) string {
	if printable(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case Control(r), r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

// printable reports whether a text has only ASCII characters that a terminal shows. Most texts do,
// and there may be millions.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Shorten cuts a text after max bytes and marks the cut.
func Shorten(s string, max int) string {
	if len(s) <= max {
		return s
	}
	return strings.ToValidUTF8(s[:max], "") + "..."
}

// Quote makes a path safe to paste into a POSIX shell.
func Quote(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
