package backup

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestForgedPart: a trusted signer may sign rows that do not fit together. No part of such a
// backup gets into a vault.
func TestForgedPart(t *testing.T) {
	other := "SHA256:" + strings.Repeat("A", 43)
	replace := func(name, old, new string) func(*forgery) {
		return func(f *forgery) {
			m := f.find(name)
			m.data = bytes.Replace(m.data, []byte(old), []byte(new), 1)
		}
	}
	lines := func(name string, order ...int) func(*forgery) {
		return func(f *forgery) {
			m := f.find(name)
			all := bytes.SplitAfter(m.data, []byte("\n"))
			m.data = nil
			for _, i := range order {
				m.data = append(m.data, all[i]...)
			}
		}
	}
	for name, tt := range map[string]struct {
		forge func(*forgery)
		read  error
		merge error
	}{
		"nothing":                         {func(*forgery) {}, nil, nil},
		"a node with two keys":            {replace(memberSSHKeys, `["hive-02"]`, `["hive-01"]`), ErrDamaged, nil},
		"a node that is not there":        {replace(memberHostKeys, `"hive-01"`, `"hive-66"`), ErrDamaged, nil},
		"nodes in another order":          {lines(memberNodes, 1, 0), ErrDamaged, nil},
		"a node twice":                    {lines(memberNodes, 0, 0), ErrDamaged, nil},
		"a rotation to a key not there":   {func(f *forgery) { f.rotateTo(other) }, ErrDamaged, nil},
		"a rotation of the wrong step":    {replace(memberRotations, `"pending"`, `"switched"`), nil, registry.ErrBadRow},
		"a host key twice":                {lines(memberHostKeys, 0, 0), ErrDamaged, nil},
		"a private key of another public": {func(f *forgery) { f.find("ssh_keys/1.pem").data = f.find("ssh_keys/2.pem").data }, registry.ErrInvalid, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForgery(t, fillForPart(t))
			tt.forge(&f)
			signer, line := fixedSigner(t)
			f.setSigner(line)
			f.signAs(t, signer)
			file := f.seal(t, zip(f.pack()))
			part, err := ReadPart(t.Context(), bytes.NewReader(file), PartOptions{ReadOptions: ReadOptions{Identities: []age.Identity{f.identity}, Trust: TrustSigners(f.signer)}})
			if !errors.Is(err, tt.read) {
				t.Fatalf("%v, want %v", err, tt.read)
			}
			if err != nil {
				return
			}
			v := vaulttest.New(t)
			if _, err := part.Merge(t.Context(), v, MergeOptions{}); !errors.Is(err, tt.merge) {
				t.Errorf("merge: %v, want %v", err, tt.merge)
			}
			nodes, err := registry.New(v).ListNodes(t.Context())
			if err != nil || (len(nodes) == 0) != (tt.merge != nil) {
				t.Errorf("%d nodes, %v", len(nodes), err)
			}
		})
	}
}

// fillForPart adds what a part can have: a second node, keys, host keys and a rotation.
func fillForPart(t *testing.T) func(*registry.Registry) error {
	return func(r *registry.Registry) error {
		ctx := t.Context()
		n := registry.Node{Name: "hive-02", SSHHost: "h", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
		_, err := r.CreateNodeWithKey(ctx, n, registry.KeyChoice{Generate: true})
		if err == nil {
			_, err = r.GenerateSSHKey(ctx, "ed25519", "first", "hive-01")
		}
		signer, _ := fixedSigner(t)
		for _, name := range []string{"hive-01", "hive-02"} {
			if err == nil {
				_, err = r.TrustHostKey(ctx, name, signer.PublicKey())
			}
		}
		if err == nil {
			_, err = r.BeginKeyRotation(ctx, "hive-02")
		}
		return err
	}
}

// rotateTo changes the new key of the rotation.
func (f *forgery) rotateTo(fingerprint string) {
	m := f.find(memberRotations)
	at := bytes.Index(m.data, []byte(`"new":"`)) + len(`"new":"`)
	copy(m.data[at:], fingerprint)
}
