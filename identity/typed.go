package identity

import (
	"fmt"
	"slices"
	"strings"

	"filippo.io/age"
)

// ParseTyped parses an age identity that a person typed from paper: in capitals or not, with
// spaces or not. The error matches [ErrInvalid]. It says which character is probably wrong, as
// far as the checksum tells, and contains nothing of the text.
func ParseTyped(text string) (age.Identity, error) {
	text = strings.ToUpper(strings.Join(strings.Fields(text), ""))
	id, err := ParseText(text)
	if err != nil { // the error is not wrapped: it may contain the text
		return nil, fmt.Errorf("%w: %s", ErrInvalid, mistake(text))
	}
	facts := describe(id)
	return &described{id, facts}, nil
}

// bech32Digits are the characters of an identity after its prefix. Each stands for its index.
const bech32Digits = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"

// secretDigits is how many of them an age identity has: a seed of 32 bytes, and the checksum.
const secretDigits = 52 + 6

// mistake says what is wrong with the text of an identity, which is in capitals and has no
// spaces. Positions count from 1.
func mistake(text string) string {
	prefix := "AGE-SECRET-KEY-1"
	if strings.HasPrefix(text, "AGE-SECRET-KEY-P") {
		prefix = "AGE-SECRET-KEY-PQ-1"
	}
	for i := range prefix {
		if i >= len(text) || text[i] != prefix[i] {
			return fmt.Sprintf("an age identity begins with %q: character %d is another one", prefix, i+1)
		}
	}
	digits := make([]byte, 0, len(text))
	for i, c := range []byte(text[len(prefix):]) {
		d := strings.IndexByte(bech32Digits, c)
		if d < 0 {
			return fmt.Sprintf("character %d is none of an age identity, which has no 1, B, I or O after its beginning", len(prefix)+i+1)
		}
		digits = append(digits, byte(d))
	}
	human := prefix[:len(prefix)-1] // before the separator
	likely := likelyMistake(human, digits)
	switch missing := secretDigits - len(digits); {
	case likely == "" && missing > 0:
		return fmt.Sprintf("%d of its %d characters are missing", missing, len(prefix)+secretDigits)
	case likely == "" && missing < 0:
		return fmt.Sprintf("it has %d characters more than an age identity, which has %d", -missing, len(prefix)+secretDigits)
	case likely == "":
		return "its checksum fails: more than one character is wrong"
	}
	return likely
}

// likelyMistake looks for one mistake of a typist that explains why the checksum fails. It
// finds what every single one was: the checksum tells apart all that differ in so few characters.
// "": there is none.
func likelyMistake(human string, digits []byte) string {
	first := len(human) + 2 // the position of the first digit
	try := make([]byte, 0, len(digits)+1)
	switch secretDigits - len(digits) {
	case 0:
		for i := range digits {
			try = append(try[:0], digits...)
			for d := range byte(len(bech32Digits)) {
				try[i] = d
				if checksumHolds(human, try) {
					return fmt.Sprintf("character %d is probably wrong: compare it with the paper", first+i)
				}
			}
		}
		for i := range len(digits) - 1 {
			try = append(try[:0], digits...)
			try[i], try[i+1] = try[i+1], try[i]
			if checksumHolds(human, try) {
				return fmt.Sprintf("characters %d and %d are probably swapped", first+i, first+i+1)
			}
		}
	case 1:
		for i := range len(digits) + 1 {
			for d := range byte(len(bech32Digits)) {
				try = slices.Insert(append(try[:0], digits...), i, d)
				if checksumHolds(human, try) {
					return fmt.Sprintf("a character is probably missing before character %d, or beside it", first+i)
				}
			}
		}
	case -1:
		for i := range digits {
			try = slices.Delete(append(try[:0], digits...), i, i+1)
			if checksumHolds(human, try) {
				return fmt.Sprintf("character %d is probably one too many", first+i)
			}
		}
	}
	return ""
}

// checksumHolds reports whether the last six digits are the Bech32 checksum (BIP 173) of the
// others and of the human-readable part.
func checksumHolds(human string, digits []byte) bool {
	sum := uint32(1)
	next := func(d byte) {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ uint32(d)
		for i, g := range []uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	human = strings.ToLower(human)
	for _, c := range []byte(human) {
		next(c >> 5)
	}
	next(0)
	for _, c := range []byte(human) {
		next(c & 31)
	}
	for _, d := range digits {
		next(d)
	}
	return sum == 1
}
