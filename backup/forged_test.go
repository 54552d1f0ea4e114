package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/hiddeco/sshsig"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestForged: anyone who knows the recipient can make a file that decrypts. No such file
// may pass as the vault's own.
func TestForged(t *testing.T) {
	tests := []struct {
		name  string
		forge func(t *testing.T, f *forgery) []byte // nil: the members, packed
		want  error
	}{
		{"nothing", func(*testing.T, *forgery) []byte { return nil }, nil},
		{"resigned by a signer that is then trusted", func(t *testing.T, f *forgery) []byte { f.resign(t, false); return nil }, nil},
		{"changed member", func(_ *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			n.data = bytes.Replace(n.data, []byte("hive-01"), []byte("hive-66"), 1)
			return nil
		}, ErrDamaged},
		{"signed by another, signer kept", func(t *testing.T, f *forgery) []byte { f.resign(t, true); return nil }, ErrDamaged},
		{"signed by another", func(t *testing.T, f *forgery) []byte {
			trusted := f.signer
			f.resign(t, false)
			f.signer = trusted
			return nil
		}, ErrUntrusted},
		{"wrong counts", func(t *testing.T, f *forgery) []byte {
			m := f.find(memberManifest)
			m.data = bytes.Replace(m.data, []byte(`"nodes": 1`), []byte(`"nodes": 2`), 1)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"broken audit chain", func(t *testing.T, f *forgery) []byte {
			a := f.find(memberAuditLog)
			a.data = bytes.Replace(a.data, []byte("node.add"), []byte("node.xyz"), 1)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"truncated audit log", func(t *testing.T, f *forgery) []byte {
			a := f.find(memberAuditLog)
			a.data = a.data[:bytes.IndexByte(a.data, '\n')+1]
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"another head of the audit log", func(t *testing.T, f *forgery) []byte {
			m := f.find(memberManifest)
			hash, _, _ := bytes.Cut(m.data[bytes.Index(m.data, []byte(`"audit_hash": "`))+15:], []byte(`"`))
			m.data = bytes.Replace(m.data, hash, bytes.Repeat([]byte("0"), 64), 1)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"another end of the audit log", func(t *testing.T, f *forgery) []byte {
			m := f.find(memberManifest)
			m.data = bytes.Replace(m.data, []byte(`"audit_seq": `), []byte(`"audit_seq": 1`), 1)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"a sum of nothing at the end", func(t *testing.T, f *forgery) []byte {
			extra := f.members[2]
			extra.header.Name = "extra"
			f.members = append(f.members, extra)
			f.resign(t, false)
			f.members = f.members[:len(f.members)-1]
			return nil
		}, ErrDamaged},
		{"sums that are those of the next member", func(t *testing.T, f *forgery) []byte {
			at := slices.IndexFunc(f.members, func(e entryOf) bool { return e.header.Name == memberRotations })
			whole := f.members
			f.members = slices.Clone(whole)
			for i, name := range []string{"ssh_keys/1.pem", memberRotations, memberHostKeys, memberKnownHosts, memberAuditLog} {
				f.members[at+i].header.Name = name // each has the name of the one before
			}
			f.members = append(f.members, whole[len(whole)-1])
			f.resign(t, false)
			for i := range whole {
				f.members[i].header.Name = whole[i].header.Name
			}
			f.members = f.members[:len(whole)]
			return nil
		}, ErrDamaged},
		{"a member by another name", func(_ *testing.T, f *forgery) []byte {
			f.find(memberNodes).header.Name = "nodes.jsonl"
			return nil
		}, ErrDamaged},
		{"a member that is no plain file", func(_ *testing.T, f *forgery) []byte {
			f.find(memberNodes).header.Typeflag = tar.TypeCont
			return nil
		}, ErrDamaged},
		{"unknown field", func(t *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			n.data = bytes.Replace(n.data, []byte(`{"node_name"`), []byte(`{"x":1,"node_name"`), 1)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"a jump to nowhere", func(t *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			n.data = bytes.Replace(n.data, []byte("}\n"), []byte(`,"proxy_jump":"hive-66"}`+"\n"), 1)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"jumps in a circle", func(t *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			first := bytes.Replace(n.data, []byte("}\n"), []byte(`,"proxy_jump":"hive-02"}`+"\n"), 1)
			second := bytes.Replace(n.data, []byte("}\n"), []byte(`,"proxy_jump":"hive-01"}`+"\n"), 1)
			n.data = append(first, bytes.Replace(second, []byte("hive-01"), []byte("hive-02"), 1)...)
			m := f.find(memberManifest)
			m.data = bytes.Replace(m.data, []byte(`"nodes": 1`), []byte(`"nodes": 2`), 1)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"last line cut", func(t *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			n.data = n.data[:len(n.data)-1]
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"signature of another namespace", func(t *testing.T, f *forgery) []byte {
			f.resignAs(t, "file", sshsig.HashSHA512)
			return nil
		}, ErrDamaged},
		{"signature over another hash", func(t *testing.T, f *forgery) []byte {
			f.resignAs(t, vault.SignatureNamespace, sshsig.HashSHA256)
			return nil
		}, ErrDamaged},
		{"signature of other sums", func(t *testing.T, f *forgery) []byte {
			other := newForgery(t)
			f.members[1].data = other.members[1].data
			return nil
		}, ErrDamaged},
		{"a node twice", func(t *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			n.data = append(n.data, n.data...)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"more nodes than it says", func(t *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			n.data = append(n.data, bytes.Replace(n.data, []byte("hive-01"), []byte("hive-02"), 1)...)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"a blank line", func(t *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			n.data = append(n.data, '\n')
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"spaces in a line", func(t *testing.T, f *forgery) []byte {
			n := f.find(memberNodes)
			n.data = bytes.Replace(n.data, []byte(`,"`), []byte(`, "`), 1)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"unknown field in the manifest", func(t *testing.T, f *forgery) []byte {
			m := f.find(memberManifest)
			m.data = bytes.Replace(m.data, []byte(`"format"`), []byte(`"x": 1, "format"`), 1)
			f.members[0].data = bytes.Replace(f.members[0].data, []byte(firstHash(f.members[0].data)), []byte(hashOf(m.data)), 1)
			return nil
		}, ErrDamaged},
		{"a key that nobody listed", func(t *testing.T, f *forgery) []byte {
			extra := f.members[5]
			extra.header.Name, extra.data = "ssh_keys/1.pem", []byte("-----BEGIN")
			f.members = slices.Insert(f.members, 6, extra)
			f.resign(t, false)
			return nil
		}, ErrDamaged},
		{"bytes hidden in a header", func(_ *testing.T, f *forgery) []byte {
			f.members[4].header.Format = tar.FormatPAX
			f.members[4].header.PAXRecords = map[string]string{"RBEE.hidden": "more"}
			return nil
		}, ErrDamaged},
		{"no end of the archive", func(_ *testing.T, f *forgery) []byte {
			packed := f.pack()
			return zip(packed[:len(packed)-1024-600])
		}, ErrDamaged},
		{"gzip cut", func(_ *testing.T, f *forgery) []byte { z := zip(f.pack()); return z[:len(z)-4] }, ErrDamaged},
		{"newer format", func(_ *testing.T, f *forgery) []byte {
			m := f.find(memberManifest)
			m.data = bytes.Replace(m.data, []byte("rbee-vault-backup-1"), []byte("rbee-vault-backup-2"), 1)
			f.members[0].data = bytes.Replace(f.members[0].data, []byte(firstHash(f.members[0].data)), []byte(hashOf(m.data)), 1)
			return nil
		}, vault.ErrNewer},
		{"swapped members", func(_ *testing.T, f *forgery) []byte {
			f.members[4], f.members[5] = f.members[5], f.members[4]
			return nil
		}, ErrDamaged},
		{"member missing", func(_ *testing.T, f *forgery) []byte { f.members = f.members[:len(f.members)-1]; return nil }, ErrDamaged},
		{"member twice", func(_ *testing.T, f *forgery) []byte {
			f.members = append(f.members, f.members[len(f.members)-1])
			return nil
		}, ErrDamaged},
		{"member too many", func(_ *testing.T, f *forgery) []byte {
			extra := f.members[3]
			extra.header.Name = "extra"
			f.members = append(f.members, extra)
			return nil
		}, ErrDamaged},
		{"symbolic link", func(_ *testing.T, f *forgery) []byte {
			f.members[4].header.Typeflag, f.members[4].header.Linkname = tar.TypeSymlink, "/etc/passwd"
			return nil
		}, ErrDamaged},
		{"bytes after the archive", func(_ *testing.T, f *forgery) []byte { return zip(append(f.pack(), 1)) }, ErrDamaged},
		{"bytes after gzip", func(_ *testing.T, f *forgery) []byte { return append(zip(f.pack()), 1) }, ErrDamaged},
		{"a second gzip stream", func(_ *testing.T, f *forgery) []byte { return append(zip(f.pack()), zip([]byte("more"))...) }, ErrDamaged},
		{"not gzip", func(_ *testing.T, f *forgery) []byte { return f.pack() }, ErrDamaged},
		{"nothing in it", func(_ *testing.T, f *forgery) []byte { return []byte{} }, ErrDamaged},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newForgery(t)
			plain := test.forge(t, &f)
			if plain == nil {
				plain = zip(f.pack())
			}
			if err := f.verify(t, f.seal(t, plain)); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

// TestEveryTableIsSpokenFor: every table of the database is in a backup or is left out on
// purpose.
func TestEveryTableIsSpokenFor(t *testing.T) {
	v := vaulttest.New(t)
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		rows, err := tx.QueryContext(t.Context(), `SELECT name FROM sqlite_master WHERE type = 'table'`)
		if err != nil {
			return err
		}
		defer rows.Close()
		n := 0
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			n++
			if _, ok := tables[name]; !ok {
				t.Errorf("table %s is neither exported nor left out", name)
			}
		}
		if n != len(tables) {
			t.Errorf("%d tables, %d spoken for", n, len(tables))
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestForgedSigners: the newest signer of the list must be the file's signer, and the
// list has a limit.
func TestForgedSigners(t *testing.T) {
	signer, line := fixedSigner(t)
	f := newForgery(t)
	others := f.find(memberSigners).data
	f.signAs(t, signer)
	if err := f.verify(t, f.seal(t, zip(f.pack()))); !errors.Is(err, ErrDamaged) {
		t.Errorf("signed by another than the newest: %v", err)
	}
	f.setSigner(line)
	f.find(memberSigners).data = append(bytes.Clone(others), f.find(memberSigners).data...)
	f.signAs(t, signer)
	if err := f.verify(t, f.seal(t, zip(f.pack()))); err != nil {
		t.Errorf("signed by the newest: %v", err)
	}
	f.setSigner(line)
	f.find(memberSigners).data = bytes.Repeat(f.find(memberSigners).data, maxSigners+1)
	f.signAs(t, signer)
	if err := f.verify(t, f.seal(t, zip(f.pack()))); !errors.Is(err, ErrDamaged) {
		t.Errorf("%d signers: %v", maxSigners+1, err)
	}
}

// TestVerifyMatchesKeys: another key's private half is refused, even with a trusted
// signature.
func TestVerifyMatchesKeys(t *testing.T) {
	key := func(r *registry.Registry) error {
		_, err := r.GenerateSSHKey(t.Context(), "ed25519", "", "hive-01")
		return err
	}
	f := newForgery(t, key)
	other := newForgery(t, key)
	f.find(memberPEM(1)).data = other.find(memberPEM(1)).data
	f.resign(t, false)
	if err := f.verify(t, f.seal(t, zip(f.pack()))); !errors.Is(err, registry.ErrInvalid) {
		t.Error(err)
	}
}

// TestKeysWithoutPrivateKeys: ssh_keys.jsonl and the private keys must be as many, even
// with a trusted signature.
func TestKeysWithoutPrivateKeys(t *testing.T) {
	f := newForgery(t, func(r *registry.Registry) error {
		_, err := r.GenerateSSHKey(t.Context(), "ed25519", "", "hive-01")
		return err
	})
	signer, line := fixedSigner(t)
	f.setSigner(line)
	for name, keys := range map[string][]byte{
		"none": nil,
		"two":  bytes.Repeat(f.find(memberSSHKeys).data, 2),
	} {
		g := f
		g.members = slices.Clone(f.members)
		g.find(memberSSHKeys).data = keys
		g.signAs(t, signer)
		if err := g.verify(t, g.seal(t, zip(g.pack()))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestManifestIsAsWritten: the same JSON value in another form is refused.
func TestManifestIsAsWritten(t *testing.T) {
	f := newForgery(t)
	data := f.find(memberManifest).data
	if _, err := parseManifest(data); err != nil {
		t.Fatal(err)
	}
	for _, other := range [][]byte{
		append(bytes.Clone(data), '\n'),
		bytes.Replace(data, []byte("  "), []byte(" "), 1),
		bytes.Replace(data, []byte(`"format"`), []byte(`"FORMAT"`), 1),
	} {
		if _, err := parseManifest(other); !errors.Is(err, ErrDamaged) {
			t.Errorf("%v: %q", err, other)
		}
	}
}

// TestPlacesThatAreRefused: a backup must not have the name of a vault's own file, and
// must not go into a directory that others can enter.
func TestPlacesThatAreRefused(t *testing.T) {
	v := vaulttest.New(t)
	for _, path := range []string{v.Path(), v.Path() + ".new", v.Path() + ".slots", v.Path() + "-wal"} {
		if _, err := Create(t.Context(), v, CreateOptions{Path: path}); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%s: %v", path, err)
		}
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), v, CreateOptions{Dir: open}); !errors.Is(err, vault.ErrInsecure) {
		t.Errorf("a directory that is open to others: %v", err)
	}
}

// TestTrustSigners: a certificate alone does not make a signer trusted.
func TestTrustSigners(t *testing.T) {
	for signer, want := range map[string]error{"given": nil, "successor": ErrSuccessor, "another": ErrUntrusted} {
		c := Claim{Signer: signer}
		if signer == "successor" {
			c.Predecessors = []string{"first", "given"}
		}
		if err := TrustSigners("given")(t.Context(), c); !errors.Is(err, want) {
			t.Errorf("%s: %v", signer, err)
		}
	}
}
