package identity

import (
	"fmt"
	"strings"
	"unicode"

	"filippo.io/age"
)

// The parts of age's own identities. The data is Bech32: 32 bytes and a checksum, in these
// characters.
const (
	classicPrefix = "AGE-SECRET-KEY-1"
	hybridPrefix  = "AGE-SECRET-KEY-PQ-1"
	bech32Charset = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"
	dataLength    = 52 + 6
)

// GroupLength is how many characters of the data stand in a group on a sheet.
const GroupLength = 4

// Groups divides the text of one of age's own identities for people: what all of them begin
// with, and groups of [GroupLength] characters. Another text is one group.
func Groups(text string) []string {
	prefix := prefixOf(text)
	if !strings.HasPrefix(text, prefix) {
		return []string{text}
	}
	groups := []string{prefix}
	for data := text[len(prefix):]; data != ""; {
		n := min(GroupLength, len(data))
		groups, data = append(groups, data[:n]), data[n:]
	}
	return groups
}

// TypoError says where an identity was mistyped. It holds nothing of the identity. It is
// ErrInvalid.
type TypoError struct {
	Position int // of the character, from 1, without spaces; 0: that is not known
	Rule     string
	prefix   int // length of what all identities begin with
}

func (e *TypoError) Error() string {
	switch behind := e.Position - e.prefix; {
	case e.Position == 0:
		return "the identity has a typing error: " + e.Rule
	case behind <= 0:
		return fmt.Sprintf("the identity has a typing error: character %d %s", e.Position, e.Rule)
	default:
		return fmt.Sprintf("the identity has a typing error: character %d (number %d in group %d) %s",
			e.Position, (behind-1)%GroupLength+1, (behind-1)/GroupLength+1, e.Rule)
	}
}

// Unwrap returns ErrInvalid.
func (e *TypoError) Unwrap() error { return ErrInvalid }

// ParseTyped parses one of age's own identities that a person typed from paper: in capitals
// or not, with spaces and line ends anywhere. Of a mistyped one the error is a *TypoError.
// Bech32 finds every error in up to four characters, and where one is wrong, missing or too
// many, or two neighbours are swapped, the error names the place.
func ParseTyped(text string) (age.Identity, error) {
	text = normalizeTyped(text)
	if id, err := ParseText(text); err == nil {
		return id, nil
	}
	return nil, findTypo(text)
}

// normalizeTyped drops spaces and makes capitals. Keyboards of telephones make other dashes.
func normalizeTyped(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return -1
		case unicode.Is(unicode.Pd, r):
			return '-'
		}
		return unicode.ToUpper(r)
	}, text)
}

func prefixOf(text string) string {
	if strings.HasPrefix(text, hybridPrefix[:len(classicPrefix)]) {
		return hybridPrefix
	}
	return classicPrefix
}

// looksTyped reports whether a line was meant to be one of age's own identities.
func looksTyped(line string) bool {
	return strings.HasPrefix(normalizeTyped(line), "AGE-SECRET-KEY")
}

// findTypo says what is wrong with a normalized text that is not an identity.
func findTypo(text string) *TypoError {
	prefix := prefixOf(text)
	typo := func(position int, rule string) *TypoError { return &TypoError{position, rule, len(prefix)} }
	characters := []rune(text)
	for i, want := range prefix {
		if i >= len(characters) || characters[i] != want {
			return typo(i+1, "is wrong: an identity begins with "+prefix)
		}
	}
	for i, r := range characters[len(prefix):] {
		if !strings.ContainsRune(bech32Charset, r) {
			return typo(len(prefix)+i+1, "is one that no identity has there: mind B and 8, I and 1, O and 0")
		}
	}
	var place int
	var rule string
	switch excess := len(text) - len(prefix) - dataLength; {
	case excess == 0:
		if place = changed(text, len(prefix)); place > 0 {
			return typo(place, "is wrong")
		}
		place, rule = swapped(text, len(prefix)), "and the next are swapped"
	case excess == -1:
		place, rule = inserted(text, len(prefix)), "is missing"
	case excess == 1:
		place, rule = removed(text, len(prefix)), "is too many"
	case excess < 0:
		return typo(0, fmt.Sprintf("%d characters are missing", -excess))
	default:
		return typo(0, fmt.Sprintf("it has %d characters too many", excess))
	}
	if place > 0 {
		return typo(place, rule)
	}
	return typo(0, "its checksum fails: more than one character is wrong")
}

// The following return where a text becomes an identity by one change, from 1, or 0 if no
// place or more than one does.

func changed(text string, from int) int {
	return place(from, len(text), func(at int, try func(string)) {
		for _, r := range bech32Charset {
			try(text[:at] + string(r) + text[at+1:])
		}
	})
}

func swapped(text string, from int) int {
	return place(from, len(text)-1, func(at int, try func(string)) {
		try(text[:at] + text[at+1:at+2] + text[at:at+1] + text[at+2:])
	})
}

func inserted(text string, from int) int {
	return place(from, len(text)+1, func(at int, try func(string)) {
		for _, r := range bech32Charset {
			try(text[:at] + string(r) + text[at:])
		}
	})
}

func removed(text string, from int) int {
	return place(from, len(text), func(at int, try func(string)) { try(text[:at] + text[at+1:]) })
}

// place calls attempt for each place. Different places that give the same identity, as in a
// run of equal characters, count as the first of them.
func place(from, to int, attempt func(at int, try func(string))) int {
	found, good := 0, ""
	for at := from; at < to; at++ {
		several := false
		attempt(at, func(candidate string) {
			if candidate == good {
				return
			}
			if _, err := ParseText(candidate); err != nil {
				return
			}
			several = good != ""
			found, good = at+1, candidate
		})
		if several {
			return 0
		}
	}
	return found
}
