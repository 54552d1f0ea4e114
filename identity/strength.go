package identity

import (
	"math"
	"strings"
	"unicode"
)

// MinPassphraseBits is what a passphrase should have. Whoever copies the slots file
// tries passphrases for as long as they like, on as many machines as they have.
const MinPassphraseBits = 60

// Bits of what a passphrase is made of, for who knows how people make them.
const (
	wordBits   = 12.9 // a word of a list of 7,776
	letterBits = 4.7
	digitBits  = 3.3
	otherBits  = 5.0
	caseBits   = 1.0
	repeatBits = 1.0 // a character, or a word, that follows from what is before it
	wordLetter = 8   // letters that one word may have
)

// PassphraseBits estimates how hard a passphrase is to guess, in bits, and rather too
// low than too high: a run of letters counts as words, and what repeats or counts up
// as next to nothing. It knows no dictionary: six words of a list have 77, ten random
// characters of all kinds some 40.
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
			// between words: it adds nothing
		default:
			bits += otherBits
		}
		last = lower
	}
	flush()
	return bits
}

// spread counts the letters that do not follow from the one before, the others as
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
