package digest

import (
	"errors"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

func rows(h *Hasher, texts ...string) (set RowSet) {
	for _, text := range texts {
		set.Move(1, h.Hash([]byte(text)))
	}
	return set
}

// TestRowSet: the order of the rows does not matter; every row, and how often it is there, does.
func TestRowSet(t *testing.T) {
	h := NewHasher([]byte("key"))
	set := rows(h, "a", "b")
	if set != rows(h, "b", "a") {
		t.Error("the order of the rows matters")
	}
	for name, other := range map[string]RowSet{
		"a row less":    rows(h, "a"),
		"a row more":    rows(h, "a", "b", "c"),
		"a row twice":   rows(h, "a", "b", "b", "b"),
		"another row":   rows(h, "a", "c"),
		"under a key":   rows(NewHasher([]byte("other")), "a", "b"),
		"none":          {},
		"another count": rows(h, "a", "b", "c", "c"),
	} {
		if err := CompareContent(other, set); !errors.Is(err, ErrOld) {
			t.Errorf("%s: %v, want ErrOld", name, err)
		}
	}
	set.Move(-1, h.Hash([]byte("a")))
	if err := CompareSlots(set, rows(h, "b")); err != nil {
		t.Errorf("after a row was removed: %v", err)
	}
}

// TestParse: what String returns is parsed back, and nothing else is.
func TestParse(t *testing.T) {
	h := NewHasher([]byte("key"))
	text := Digest{rows(h, "a", "b"), rows(h, "c")}.String()
	d, err := Parse(text)
	if err != nil || d.String() != text {
		t.Errorf("%v, %v, want %s", d, err, text)
	}
	for _, bad := range []string{"", "0:", strings.ToUpper(text), "0" + text, " " + text, text + " ", text + ":", text[1:], text[:len(text)-1], strings.Replace(text, ":", "", 1)} {
		if d, err := Parse(bad); !errors.Is(err, wire.ErrInvalid) || d != (Digest{}) {
			t.Errorf("%q: %v, %v, want ErrInvalid", bad, d, err)
		}
	}
}
