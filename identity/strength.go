package identity

import (
	"math"
	"strings"
	"unicode"
)

// MinPassphraseBits is the strength that a passphrase should have. An attacker who copies the
// slots file can try passphrases for any time, on any number of machines.
const MinPassphraseBits = 60

// How many bits each part of a passphrase counts. An attacker is assumed to know how people
// make passphrases.
const (
	wordBits   = 12.9 // a word from a list of 7,776
	letterBits = 4.7
	digitBits  = 3.3
	otherBits  = 5.0
	caseBits   = 1.0
	repeatBits = 1.0 // a character, or a word, that follows from the one before
	wordLetter = 8   // the longest run of letters that counts as one word
)

// PassphraseBits estimates how hard a passphrase is to guess, in bits. The estimate is rather
// too low than too high. A run of letters counts as words. What repeats, or counts up or down,
// counts as almost nothing. It knows no dictionary: six words of a list have 77 bits, ten
// random characters of all kinds have about 40.
func PassphraseBits(passphrase []byte) float64 {
	bits := 0.0
	seen := map[string]bool{}
	run := []rune{} // letters in a row
	flush := func() {
		if len(run) == 0 {
			return
		}
		word := strings.ToLower(string(run))
		switch letters := spread(run) * letterBits; {
		case seen[word]:
			bits += repeatBits
		case len(run) <= wordLetter:
			bits += math.Min(letters, wordBits)
		default:
			bits += math.Min(letters, wordBits+float64(len(run)-wordLetter)*letterBits)
		}
		seen[word] = true
		run = run[:0]
	}
	var last rune
	for _, r := range string(passphrase) {
		lower := unicode.ToLower(r)
		follows := lower == last || lower == last+1 || lower == last-1
		if unicode.IsLetter(r) {
			if len(run) > 0 && unicode.IsUpper(r) && unicode.IsLower(run[len(run)-1]) {
				flush() // WordsLikeThis
				bits += caseBits
			}
			run = append(run, r)
			last = lower
			continue
		}
		flush()
		switch {
		case follows:
			bits += repeatBits
		case unicode.IsDigit(r):
			bits += digitBits
		case r == ' ' || r == '-' || r == '.' || r == '_' || r == ',':
			// These separate words and add nothing.
		default:
			bits += otherBits
		}
		last = lower
	}
	flush()
	return bits
}

// spread counts the letters of a run. A letter that follows from the one before counts very
// little.
func spread(run []rune) float64 {
	n := 0.0
	for i, r := range run {
		if i > 0 {
			before := unicode.ToLower(run[i-1])
			if d := unicode.ToLower(r) - before; -1 <= d && d <= 1 {
				n += repeatBits / letterBits
				continue
			}
		}
		n++
	}
	return n
}
