package identity

import (
	"strings"
	"testing"
)

func TestPassphraseBits(t *testing.T) {
	for passphrase, enough := range map[string]bool{
		"":                                false,
		"abcde":                           false,
		"secret":                          false,
		"password123":                     false,
		"correct horse battery staple":    false, // four words: 52
		"Tr0ub4dor&3":                     false,
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":  false,
		"abcdefghijklmnopqrstuvwxyz":      false,
		"123456789012345678901234567890":  false,
		strings.Repeat("horse ", 10):      false,
		"       -------       _______ ..": false,
		"correct horse battery staple unwind gravel": true,
		"CorrectHorseBatteryStapleUnwindGravel":      true,
		"qmwjvkzxphtrgbnldfyc":                       true, // 20 random letters
		"7Hq!x9Zp#4Lw@2Vt$":                          true, // 17 of all kinds
		"49302758104692857361":                       true, // 20 random digits
		"größe wüste zähne öfter äpfel übung":        true,
	} {
		if got := PassphraseBits([]byte(passphrase)); (got >= MinPassphraseBits) != enough {
			t.Errorf("%q: %.0f bits", passphrase, got)
		}
	}
}
