package backup

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// richForgery has two nodes, of which one uses a key that is being replaced, and a host key.
func richForgery(t testing.TB) *forgery {
	t.Helper()
	f := newForgery(t, func(r *registry.Registry) error {
		second := registry.Node{Name: "hive-02", SSHHost: "i", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
		err := r.CreateNode(t.Context(), second)
		_, e := r.GenerateSSHKey(t.Context(), "ed25519", "", "hive-01")
		_, e2 := r.BeginKeyRotation(t.Context(), "hive-01")
		signer, _ := fixedSigner(t)
		_, e3 := r.TrustHostKey(t.Context(), "hive-01", signer.PublicKey())
		for _, name := range []string{"disk", "usb"} {
			err = errors.Join(err, AddTarget(t.Context(), r.Vault(), Target{Name: name, URL: "dir:/srv/" + name}))
		}
		for _, s := range []registry.Setting{{Name: registry.SettingSSHPort, Value: "2222"}, {Name: registry.SettingSSHUser, Value: "ops"}} {
			err = errors.Join(err, r.SetSetting(t.Context(), s))
		}
		return errors.Join(err, e, e2, e3)
	})
	return &f
}

// lines returns the lines of a member.
func (f *forgery) lines(name string) []string {
	return slices.Collect(strings.Lines(string(f.find(name).data)))
}

func (f *forgery) setLines(name string, lines ...string) {
	f.find(name).data = []byte(strings.Join(lines, ""))
}

// change replaces a text in every line of a member.
func (f *forgery) change(name, old, now string) {
	f.find(name).data = bytes.ReplaceAll(f.find(name).data, []byte(old), []byte(now))
}

// slotFor is a line of slots.jsonl.
func slotFor(id, kind, recipient string) string {
	return `{"id":"` + id + `","kind":"` + kind + `","label":"x","recipient":"` + recipient + `","identity":null,"created":"2026-01-02T03:04:05.000Z"}` + "\n"
}

// TestSignedButBad: a program with a mistake, or whoever has the signing key, can sign what no
// vault has. Verify and Restore refuse it in the same way.
func TestSignedButBad(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	twice := func(member string) func(*forgery) {
		return func(f *forgery) { f.setLines(member, append(f.lines(member), f.lines(member)...)...) }
	}
	for name, forge := range map[string]func(f *forgery){
		"a node twice":           twice(memberNodes),
		"a rotation twice":       twice(memberRotations),
		"a host key twice":       twice(memberHostKeys),
		"a slot twice":           twice(memberSlots),
		"nodes out of order":     swapLines(memberNodes),
		"targets out of order":   swapLines(memberTargets),
		"settings out of order":  swapLines(memberSettings),
		"a target twice":         repeatLine(memberTargets),
		"a setting twice":        repeatLine(memberSettings),
		"a setting as an option": func(f *forgery) { f.change(memberSettings, `"ops"`, `"-ops"`) },
		"a host key of no node":  func(f *forgery) { f.change(memberHostKeys, "hive-01", "hive-66") },
		"a rotation of no node":  func(f *forgery) { f.change(memberRotations, "hive-01", "hive-66") },
		"a rotation to no key": func(f *forgery) {
			line := f.lines(memberRotations)[0]
			at := strings.Index(line, `"new":"SHA256:`) + len(`"new":"SHA256:`)
			f.setLines(memberRotations, line[:at]+strings.Repeat("A", 43)+line[at+43:])
		},
		"a key of no node":      func(f *forgery) { f.change(memberSSHKeys, "hive-01", "hive-66") },
		"a node with two keys":  func(f *forgery) { f.change(memberSSHKeys, `"nodes":[]`, `"nodes":["hive-01"]`) },
		"keys out of order":     func(f *forgery) { swapKeys(f) },
		"another's private key": func(f *forgery) { f.find(memberPEM(1)).data = f.find(memberPEM(2)).data },
		"a jump to nowhere":     func(f *forgery) { f.jump("hive-01", "hive-66") },
		"jumps in a circle":     func(f *forgery) { f.jump("hive-01", "hive-02"); f.jump("hive-02", "hive-01") },
		"an audit row changed":  func(f *forgery) { f.change(memberAuditLog, "node.add", "node.xyz") },
		"an audit row missing": func(f *forgery) {
			lines := f.lines(memberAuditLog)
			f.setLines(memberAuditLog, slices.Delete(lines, 1, 2)...)
		},
		"no slots": func(f *forgery) { f.setLines(memberSlots) },
		"no recovery or recipient slot": func(f *forgery) {
			f.setLines(memberSlots, slotFor("0123456789abcdef", "credential", f.identity.Recipient().String()))
		},
		"a recipient that is none": func(f *forgery) {
			f.setLines(memberSlots, append(f.lines(memberSlots), slotFor("0123456789abcdef", "recipient", "age1nonsense"))...)
		},
		"slots of two classes": func(f *forgery) {
			f.setLines(memberSlots, append(f.lines(memberSlots), slotFor("0123456789abcdef", "recipient", hybrid.Recipient().String()))...)
		},
		"a recipient with two slots": func(f *forgery) {
			f.setLines(memberSlots, slotFor("0123456789abcdef", "recipient", f.identity.Recipient().String()), slotFor("0123456789abcdee", "recipient", f.identity.Recipient().String()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := richForgery(t)
			signer, line := fixedSigner(t)
			f.setSigner(line)
			forge(f)
			f.signAs(t, signer)
			file := f.seal(t, zip(f.pack()))
			if err := f.verify(t, file); !errors.Is(err, ErrDamaged) {
				t.Errorf("verify: %v, want ErrDamaged", err)
			}
			if err := f.restore(t, file); !errors.Is(err, ErrDamaged) {
				t.Errorf("restore: %v, want ErrDamaged", err)
			}
		})
	}
	f := richForgery(t)
	signer, line := fixedSigner(t)
	f.setSigner(line)
	f.signAs(t, signer)
	file := f.seal(t, zip(f.pack()))
	if err := errors.Join(f.verify(t, file), f.restore(t, file)); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// swapLines swaps the two lines of a member.
func swapLines(member string) func(*forgery) {
	return func(f *forgery) {
		lines := f.lines(member)
		f.setLines(member, lines[1], lines[0])
	}
}

// repeatLine puts the first line of a member in the place of the second.
func repeatLine(member string) func(*forgery) {
	return func(f *forgery) {
		first := f.lines(member)[0]
		f.setLines(member, first, first)
	}
}

// swapKeys puts the second SSH key first, with its private key.
func swapKeys(f *forgery) {
	lines := f.lines(memberSSHKeys)
	f.setLines(memberSSHKeys, lines[1], lines[0])
	one, two := f.find(memberPEM(1)), f.find(memberPEM(2))
	one.data, two.data = two.data, one.data
}

// jump makes a node jump through another.
func (f *forgery) jump(node, through string) {
	lines := f.lines(memberNodes)
	for i, line := range lines {
		if strings.Contains(line, `"node_name":"`+node+`"`) {
			lines[i] = strings.TrimSuffix(line, "}\n") + `,"proxy_jump":"` + through + `"}` + "\n"
		}
	}
	f.setLines(memberNodes, lines...)
}

// restore restores a file to a new place, where nothing is left after an error.
func (f *forgery) restore(t testing.TB, file []byte) error {
	t.Helper()
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "beehives.db"), Actor: "ops", Via: "test", Identities: []age.Identity{f.identity}}
	_, err := Restore(t.Context(), cfg, bytes.NewReader(file), RestoreOptions{
		ReadOptions: ReadOptions{Identities: cfg.Identities, Trust: TrustSigners(f.signer)},
	})
	if _, e := os.Stat(cfg.Path); (err == nil) != (e == nil) {
		t.Errorf("restore: %v; the database: %v", err, e)
	}
	return err
}
