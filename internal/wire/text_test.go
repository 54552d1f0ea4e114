package wire

import "testing"

// TestClean: each character is kept or replaced, also where all others are plain.
func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "",
		"plain ~ text":        "plain ~ text",
		"a\nb\rc\td":          "a b c d",
		"a\x00b\x1bc\x7f":     "a?b?c?",
		"a\x80b\xff":          "a?b?",
		"é\u0085\u2028\u202e": "é???",
	} {
		if got := Clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for c := range rune(0x200) {
		kept := !Control(c)
		if got := Clean("a" + string(c) + "b"); (got == "a"+string(c)+"b") != kept {
			t.Errorf("%q: %q", c, got)
		}
	}
}
