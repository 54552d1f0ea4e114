package wire

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// TestParseHex: lower-case digits of the right number, and nothing else.
func TestParseHex(t *testing.T) {
	for c := range 256 {
		for at := range 4 {
			text := []byte("09af")
			text[at] = byte(c)
			var got [2]byte
			ok := ParseHex(got[:], string(text))
			want, err := hex.DecodeString(string(text))
			if valid := err == nil && !('A' <= c && c <= 'F'); ok != valid || ok && !bytes.Equal(got[:], want) {
				t.Errorf("%q: %x, %v", text, got, ok)
			}
		}
	}
	for _, text := range []string{"", "09a", "09aff", "09af09af"} {
		if ParseHex(make([]byte, 2), text) {
			t.Errorf("%q is parsed as 2 bytes", text)
		}
	}
}
