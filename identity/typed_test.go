package identity_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/identity"
)

const charset = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"

func generate(t *testing.T, class identity.Class) string {
	t.Helper()
	text, _, err := identity.Generate(class)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// position returns where the typing error is said to be. No error may hold a part of the
// identity.
func position(t *testing.T, secret, typed string) int {
	t.Helper()
	_, err := identity.ParseTyped(typed)
	typo, ok := errors.AsType[*identity.TypoError](err)
	if !ok || !errors.Is(err, identity.ErrInvalid) {
		t.Fatalf("%v, want a *TypoError that is ErrInvalid", err)
	}
	data := secret[strings.LastIndexByte(secret, '1')+1:]
	for i := range len(data) - 5 {
		if strings.Contains(err.Error(), data[i:i+5]) {
			t.Errorf("the error holds a part of the identity: %v", err)
		}
	}
	return typo.Position
}

// TestParseTyped: people type in small letters, with spaces, and over several lines.
func TestParseTyped(t *testing.T) {
	for _, class := range []identity.Class{identity.Classic, identity.PostQuantum} {
		text := generate(t, class)
		groups := identity.Groups(text)
		if strings.Join(groups, "") != text || len(groups) != 16 || len(groups[15]) != 2 {
			t.Errorf("%d groups, the last with %d characters", len(groups), len(groups[len(groups)-1]))
		}
		for name, typed := range map[string]string{
			"as it is":    text,
			"small":       strings.ToLower(text),
			"groups":      strings.Join(groups, " "),
			"lines":       strings.ToLower(strings.Join(groups, "\r\n")),
			"odd spaces":  "\u00a0" + strings.Join(groups, "\t") + "\u2003",
			"other dashs": strings.ReplaceAll(text, "-", "\u2013"),
		} {
			id, err := identity.ParseTyped(typed)
			if err != nil || identity.Text(id) != text {
				t.Errorf("%s, %s: %v", class, name, err)
			}
			parsed, err := identity.Parse(t.Context(), strings.NewReader("# a sheet\n"+typed+"\n"), identity.Options{})
			if err != nil || len(parsed) != 1 || identity.Text(parsed[0]) != text {
				t.Errorf("%s, %s, in a file: %d identities, %v", class, name, len(parsed), err)
			}
		}
	}
	first, second := generate(t, identity.Classic), generate(t, identity.Classic)
	both := strings.Join(identity.Groups(first), "\n") + "\n" + second + "\n"
	if parsed, err := identity.Parse(t.Context(), strings.NewReader(both), identity.Options{}); err != nil || len(parsed) != 2 {
		t.Errorf("two identities: %d, %v", len(parsed), err)
	}
}

// TestTypos makes every single error at every place.
func TestTypos(t *testing.T) {
	for _, class := range []identity.Class{identity.Classic, identity.PostQuantum} {
		text := generate(t, class)
		data := strings.LastIndexByte(text, '1') + 1
		for at := range len(text) {
			if got := position(t, text, text[:at]+"!"+text[at+1:]); got != at+1 {
				t.Errorf("%s: an impossible character at %d: position %d", class, at+1, got)
			}
			if at < data {
				continue
			}
			other := charset[(strings.IndexByte(charset, text[at])+7)%len(charset)]
			if got := position(t, text, text[:at]+strings.ToLower(string(other))+text[at+1:]); got != at+1 {
				t.Errorf("%s: a wrong character at %d: position %d", class, at+1, got)
			}
			// In a run of equal characters it does not matter which one is missing.
			if got := position(t, text, text[:at]+text[at+1:]); got == 0 || strings.Trim(text[min(got-1, at):max(got-1, at)], text[at:at+1]) != "" {
				t.Errorf("%s: a missing character at %d: position %d", class, at+1, got)
			}
			if got := position(t, text, text[:at]+string(other)+text[at:]); got == 0 {
				t.Errorf("%s: a character too many at %d: no position", class, at+1)
			}
			if at+1 < len(text) && text[at] != text[at+1] {
				if got := position(t, text, text[:at]+text[at+1:at+2]+text[at:at+1]+text[at+2:]); got != at+1 {
					t.Errorf("%s: two swapped at %d: position %d", class, at+1, got)
				}
			}
		}
		wrong := strings.NewReplacer("Q", "P", "P", "Q", "Z", "R", "R", "Z", "Y", "9", "9", "Y").Replace(text[data:])
		if got := position(t, text, text[:data]+wrong); got != 0 && wrong != text[data:] {
			t.Logf("several errors: position %d", got) // one that was only in one place
		}
	}
	text := generate(t, identity.Classic)
	for _, typed := range []string{text[:40], text + "QQQ", "age", ""} {
		position(t, text, typed)
	}
	if _, err := identity.Parse(t.Context(), strings.NewReader("# x\n"+text[:30]+"B"+text[31:]+"\n"), identity.Options{}); !strings.Contains(err.Error(), "line 2: ") || !strings.Contains(err.Error(), "character 31 (number 3 in group 4)") {
		t.Errorf("%v, want the line and the place", err)
	}
}
