package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func FuzzParseSums(f *testing.F) {
	f.Add([]byte(strings.Repeat("0", 64) + "  manifest.json\n"))
	f.Add(newForgery(f).members[0].data)
	f.Fuzz(func(t *testing.T, data []byte) {
		sums, err := parseSums(data)
		if err == nil && !bytes.Equal(encodeSums(sums), data) {
			t.Error("sums are not as they were read")
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add(newForgery(f).members[2].data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := m.encode(&b); err != nil || !bytes.Equal(b.Bytes(), data) {
			t.Error("a manifest is not as it was read")
		}
	})
}

// FuzzArchive replaces the content of a member and makes the counts, the sums and the
// signature again, with a trusted key. If that is accepted, what was read must encode to
// the same bytes and be valid.
func FuzzArchive(f *testing.F) {
	signer, line := fixedSigner(f)
	forged := newForgery(f, func(r *registry.Registry) error {
		_, err := r.GenerateSSHKey(f.Context(), "ed25519", "", "hive-01")
		_, e := r.TrustHostKey(f.Context(), "hive-01", signer.PublicKey())
		_, e2 := r.BeginKeyRotation(f.Context(), "hive-01")
		return errors.Join(err, e, e2)
	})
	forged.setSigner(line)
	for i, m := range forged.members {
		f.Add(uint8(i), m.data)
	}
	trust := func(context.Context, Claim) error { return nil }
	f.Fuzz(func(t *testing.T, at uint8, data []byte) {
		g := forgery{members: slices.Clone(forged.members)}
		g.members[int(at)%len(g.members)].data = data
		g.countAgain(line)
		if int(at)%len(g.members) > 1 {
			g.sumAgain()
		}
		if int(at)%len(g.members) != 1 {
			var err error
			if g.members[1].data, err = vault.Sign(g.members[0].data, signer, vault.SignatureNamespace); err != nil {
				t.Fatal(err)
			}
		}
		read := &collect{}
		a := &archiveReader{tar: tar.NewReader(bytes.NewReader(g.pack())), trust: trust, to: read}
		if _, err := a.read(context.Background()); err != nil {
			return
		}
		for name, lines := range read.lines {
			if !bytes.Equal(lines.Bytes(), g.find(name).data) {
				t.Errorf("%s was read as %q, and is %q", name, lines.Bytes(), g.find(name).data)
			}
		}
	})
}

// collect is a sink that encodes again what it is given.
type collect struct {
	lines map[string]*bytes.Buffer
}

var _ sink = (*collect)(nil)

func (c *collect) add(name string, v any) error {
	if c.lines == nil {
		c.lines = map[string]*bytes.Buffer{}
	}
	if c.lines[name] == nil {
		c.lines[name] = &bytes.Buffer{}
	}
	return (&lineWriter{w: c.lines[name]}).write(v)
}

func (c *collect) node(ctx context.Context, n registry.Node) error {
	return c.add(memberNodes, n)
}

func (c *collect) sshKey(ctx context.Context, k registry.SSHKey, private []byte) error {
	return c.add(memberSSHKeys, k)
}

func (c *collect) keyRotation(ctx context.Context, k registry.KeyRotation) error {
	return c.add(memberRotations, k)
}

func (c *collect) hostKey(ctx context.Context, k registry.HostKey) error {
	return c.add(memberHostKeys, k)
}

func (c *collect) target(_ context.Context, t Target) error {
	return c.add(memberTargets, t.json())
}

func (c *collect) setting(_ context.Context, s registry.Setting) error {
	return c.add(memberSettings, s)
}

func (c *collect) auditRow(_ context.Context, r vault.AuditRow) error {
	return c.add(memberAuditLog, r)
}

func (c *collect) slots(_ context.Context, slots []vault.Slot) error {
	for _, s := range slots {
		if err := c.add(memberSlots, s); err != nil {
			return err
		}
	}
	return nil
}

// FuzzTar replaces the tar archive. Only the archive that was written may be accepted.
func FuzzTar(f *testing.F) {
	forged := newForgery(f)
	plain := forged.pack()
	f.Add(plain)
	f.Add([]byte("SHA256SUMS"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a := &archiveReader{tar: tar.NewReader(bytes.NewReader(data)), trust: TrustSigners(forged.signer), to: discard{}}
		_, err := a.read(context.Background())
		if err == nil && !bytes.Equal(data[:min(len(data), len(plain)-1024)], plain[:len(plain)-1024]) {
			// Padding and header fields that are not used may differ. The content of the
			// members may not.
			g := forgery{}
			for r := tar.NewReader(bytes.NewReader(data)); ; {
				h, err := r.Next()
				if err != nil {
					break
				}
				content, _ := io.ReadAll(r)
				g.members = append(g.members, entryOf{*h, content})
			}
			for i, m := range g.members {
				if !bytes.Equal(m.data, forged.members[i].data) {
					t.Errorf("member %s is not what was written", m.header.Name)
				}
			}
		}
	})
}
