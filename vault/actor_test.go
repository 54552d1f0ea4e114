package vault

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
)

// TestTextOfBackups: a row or a slot that is read from a backup must obey the same rules as one
// that is written.
func TestTextOfBackups(t *testing.T) {
	row := func(change func(*AuditRow)) []byte {
		r := AuditRow{Seq: 1, Actor: "ops(1000)@desk", Via: "test", Action: "node.add", Subject: "hive-01", Detail: "a", Digest: digest.Digest{}.String()}
		change(&r)
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, bad := range []string{"\x1b[31m", "a\nb", "\u009b", "\u202e", "\u2028", "\u200f"} {
		for name, change := range map[string]func(*AuditRow){
			"actor":   func(r *AuditRow) { r.Actor = bad },
			"via":     func(r *AuditRow) { r.Via = bad },
			"action":  func(r *AuditRow) { r.Action = bad },
			"subject": func(r *AuditRow) { r.Subject = bad },
			"detail":  func(r *AuditRow) { r.Detail = bad },
		} {
			var r AuditRow
			if err := r.UnmarshalJSON(row(change)); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s %q: %v", name, bad, err)
			}
		}
		for name, change := range map[string]func(*Slot){
			"kind":      func(s *Slot) { s.Kind = SlotKind(bad) },
			"label":     func(s *Slot) { s.Label = bad },
			"recipient": func(s *Slot) { s.Recipient = bad },
		} {
			s := Slot{ID: "0123456789abcdef", Kind: SlotRecipient, Label: "desk", Recipient: "age1x"}
			if err := s.validate(); err != nil {
				t.Fatal(err)
			}
			change(&s)
			if err := s.validate(); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s %q: %v", name, bad, err)
			}
		}
	}
	long := row(func(r *AuditRow) { r.Detail = strings.Repeat("x", maxDetail+1) })
	if err := new(AuditRow).UnmarshalJSON(long); !errors.Is(err, ErrInvalid) {
		t.Errorf("too long: %v", err)
	}
	for _, good := range []string{"plain", "ä … 漢", strings.Repeat("x", maxDetail)} {
		if err := new(AuditRow).UnmarshalJSON(row(func(r *AuditRow) { r.Detail = good })); err != nil {
			t.Errorf("%.20q: %v", good, err)
		}
	}
}

// TestAuditTextSaysThatItIsCut: a text is cut at a character's boundary, and a cut text is not
// cut again.
func TestAuditTextSaysThatItIsCut(t *testing.T) {
	for n := range 8 {
		text := strings.Repeat("x", n) + strings.Repeat("漢", 100)
		got := auditText(text, 64)
		if len(got) > 64 || !strings.HasSuffix(got, "… (cut)") || !utf8.ValidString(got) || !strings.HasPrefix(text, strings.TrimSuffix(got, "… (cut)")) {
			t.Errorf("%q", got)
		}
		if again := auditText(got, 64); again != got {
			t.Errorf("%q became %q", got, again)
		}
	}
	if got := auditText("as it is", 8); got != "as it is" {
		t.Errorf("%q", got)
	}
}
