package backup

import (
	"bytes"
	"errors"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestForgedText: a backup of a signer who is trusted holds no text that a vault would
// not have written.
func TestForgedText(t *testing.T) {
	for name, change := range map[string]struct{ member, old, new string }{
		"audit detail":   {memberAuditLog, `"detail":"`, `"detail":"\u001b[2J`},
		"audit subject":  {memberAuditLog, `"subject":"`, `"subject":"a\nb`},
		"audit actor":    {memberAuditLog, `"actor":"`, `"actor":"` + "\u202e"},
		"slot label":     {memberSlots, `"label":"`, `"label":"\u001b[2J`},
		"slot kind":      {memberSlots, `"kind":"`, `"kind":"` + "\u2066"},
		"slot recipient": {memberSlots, `"recipient":"`, `"recipient":"\u001b`},
	} {
		f := newForgery(t)
		m := f.find(change.member)
		data := bytes.Replace(m.data, []byte(change.old), []byte(change.new), 1)
		if bytes.Equal(data, m.data) {
			t.Fatalf("%s: nothing was changed in %s", name, m.data)
		}
		m.data = data
		f.resign(t, false)
		if err := f.verify(t, f.seal(t, zip(f.pack()))); !errors.Is(err, ErrDamaged) || !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMembersAreBounded: what nobody looks at is not read without end.
func TestMembersAreBounded(t *testing.T) {
	for name, max := range map[string]int{memberReadme: maxReadme, memberKnownHosts: 0} {
		for _, more := range []int{0, 1} {
			f := newForgery(t)
			f.find(name).data = bytes.Repeat([]byte("#"), max+more)
			f.resign(t, false)
			if err := f.verify(t, f.seal(t, zip(f.pack()))); errors.Is(err, ErrDamaged) != (more > 0) {
				t.Errorf("%s, %d bytes too many: %v", name, more, err)
			}
		}
	}
}
