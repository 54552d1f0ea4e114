package identity

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestParseTyped: one mistake of a typist, wherever it is, is found and named by its position.
func TestParseTyped(t *testing.T) {
	for _, class := range []Class{Classic, PostQuantum} {
		text, recipient, err := Generate(class)
		if err != nil {
			t.Fatal(err)
		}
		for _, typed := range []string{text, strings.ToLower(text), " " + text[:20] + " " + text[20:] + "\n"} {
			id, err := ParseTyped(typed)
			if err != nil || Describe(id).Recipient != recipient || Text(id) != text {
				t.Errorf("%s: %v", class, err)
			}
		}
		first := strings.Index(text, "1") + 1
		if len(text)-first != secretDigits {
			t.Fatalf("%s: %d digits", class, len(text)-first)
		}
		for i := range len(text) {
			other := byte('Q')
			if text[i] == 'Q' {
				other = 'P'
			}
			mistyped(t, text, text[:i]+string(other)+text[i+1:], fmt.Sprintf("character %d is ", i+1))
			if i >= first {
				mistyped(t, text, text[:i]+"B"+text[i+1:], fmt.Sprintf("character %d is none", i+1))
				mistyped(t, text, text[:i]+text[i+1:], "a character is probably missing")
				mistyped(t, text, text[:i]+string(other)+text[i:], "probably one too many")
			}
			if i >= first && i+1 < len(text) && text[i] != text[i+1] {
				mistyped(t, text, text[:i]+text[i+1:i+2]+text[i:i+1]+text[i+2:], fmt.Sprintf("characters %d and %d are probably swapped", i+1, i+2))
			}
		}
		mistyped(t, text, text[:len(text)-5], fmt.Sprintf("5 of its %d characters are missing", len(text)))
		mistyped(t, text, text+"QQQ", "it has 3 characters more")
		reversed := []byte(text)
		for i, j := first, len(text)-1; i < j; i, j = i+1, j-1 {
			reversed[i], reversed[j] = reversed[j], reversed[i]
		}
		mistyped(t, text, string(reversed), "more than one character is wrong")
	}
	mistyped(t, "", "", "character 1 is another one")
	mistyped(t, "", "age1qqqq", "character 4 is another one")
}

// mistyped checks what is said of a wrong text, and that nothing of it is said.
func mistyped(t *testing.T, text, typed, says string) {
	t.Helper()
	id, err := ParseTyped(typed)
	if !errors.Is(err, ErrInvalid) || id != nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, want %q", err, says)
		return
	}
	for i := range len(text) - 8 {
		if i > 19 && strings.Contains(err.Error(), text[i:i+8]) {
			t.Errorf("it quotes the identity: %v", err)
		}
	}
}
