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
