package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestForgedText: text that a vault would not write is refused, even with a trusted
// signature.
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

// TestMembersAreBounded: members whose content is not used have a limit too.
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

// endless is a reader of zeros that counts.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	clear(p)
	e.n += int64(len(p))
	return len(p), nil
}

// TestMembersThatAreHeld: what is held in memory has a limit, whatever size the archive
// states. Nothing is read beyond it.
func TestMembersThatAreHeld(t *testing.T) {
	const far = 1 << 30
	endlessly := func(name string) (*archiveReader, *endless) {
		var head bytes.Buffer
		if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: name, Size: far, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		rest := &endless{}
		return &archiveReader{tar: tar.NewReader(io.MultiReader(&head, rest))}, rest
	}
	for _, test := range []struct {
		name string
		max  int64
		read func(a *archiveReader, name string) error
	}{
		{memberSums, maxSums, func(a *archiveReader, _ string) error { _, err := a.readSums(); return err }},
		{memberNodes, maxLine, func(a *archiveReader, name string) error {
			var n int64
			if err := a.next(name); err != nil {
				return err
			}
			return readLines(a.tar, &n, 1, func(registry.Node) error { return nil })
		}},
	} {
		a, rest := endlessly(test.name)
		if err := test.read(a, test.name); !errors.Is(err, ErrDamaged) || rest.n > 2*test.max {
			t.Errorf("%s: %v, after %d bytes", test.name, err, rest.n)
		}
	}

	// The other members need sums that are right.
	f := newForgery(t, func(r *registry.Registry) error {
		_, err := r.GenerateSSHKey(t.Context(), "ed25519", "", "hive-01")
		return err
	})
	nodes := bytes.Repeat(f.find(memberNodes).data, 3)
	var n int64
	used := 0
	err := readLines(bytes.NewReader(nodes), &n, 1, func(registry.Node) error { used++; return nil })
	if !errors.Is(err, ErrDamaged) || used != 1 {
		t.Errorf("lines beyond what is signed: %v, %d used", err, used)
	}
	for _, test := range []struct {
		name string
		max  int
	}{{memberSignature, maxSignature}, {memberManifest, maxManifest}, {memberPEM(1), registry.MaxPEM}} {
		g := f
		g.members = slices.Clone(f.members)
		g.find(test.name).data = bytes.Repeat([]byte("#"), test.max+1)
		if test.name == memberPEM(1) {
			g.resign(t, false)
		} else if test.name == memberManifest {
			g.sumAgain()
		}
		err := g.verify(t, g.seal(t, zip(g.pack())))
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "over ") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
