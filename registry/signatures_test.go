package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

func TestHostSSHKeys(t *testing.T) {
	r := newRegistry(t)
	ctx := t.Context()
	for _, name := range []string{"hive-01", "hive-02", "hive-03"} {
		n := testNode()
		n.Name = name
		check(t, r.CreateNode(ctx, n))
	}
	one, err := r.GenerateSSHKey(ctx, "ed25519", "one", "hive-01", "hive-02")
	check(t, err)
	two, err := r.GenerateSSHKey(ctx, "ed25519", "two", "hive-03")
	check(t, err)
	first, second := hostKey(t), hostKey(t)
	for node, key := range map[string]ssh.PublicKey{"hive-01": first, "hive-02": second, "hive-03": second} {
		_, err := r.TrustHostKey(ctx, node, key)
		check(t, err)
	}
	type use struct{ Fingerprint, Nodes string }
	for _, row := range []struct {
		host ssh.PublicKey
		want []use
	}{
		{first, []use{{one.Fingerprint, "hive-01"}}},
		{second, []use{{one.Fingerprint, "hive-02"}, {two.Fingerprint, "hive-03"}}},
		{hostKey(t), nil},
	} {
		keys, err := r.HostSSHKeys(ctx, row.host)
		check(t, err)
		var got []use
		for _, k := range keys {
			check(t, k.Validate())
			for _, n := range k.Nodes {
				got = append(got, use{k.Fingerprint, n})
			}
		}
		less := func(list []use) []use {
			if len(list) == 2 && list[0].Nodes > list[1].Nodes {
				list[0], list[1] = list[1], list[0]
			}
			return list
		}
		if diff := cmp.Diff(row.want, less(got)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func hostKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	k, err := GeneratePrivateKey("ed25519", "")
	check(t, err)
	defer k.Wipe()
	return k.public
}

// signing is a registry with a node, its host key, and its SSH key.
type signing struct {
	*Registry
	keys KeyCache
	host ssh.PublicKey
	key  SSHKey
}

func newSigning(t *testing.T) *signing {
	t.Helper()
	s := &signing{Registry: newRegistry(t), host: hostKey(t)}
	n := testNode()
	n.Name = "hive-01"
	check(t, s.CreateNode(t.Context(), n))
	_, err := s.TrustHostKey(t.Context(), n.Name, s.host)
	check(t, err)
	s.key, err = s.GenerateSSHKey(t.Context(), "ed25519", "", n.Name)
	check(t, err)
	return s
}

// login asks for a login to the host, as confirmed for these nodes.
func (s *signing) login(host ssh.PublicKey, confirmed ...string) SignatureRequest {
	return SignatureRequest{
		Signature: Signature{Fingerprint: s.key.Fingerprint, Nodes: confirmed, User: "ops", Peer: "pid 7 (/usr/bin/ssh)"},
		HostKey:   host, Data: []byte("data"), Algorithm: ssh.KeyAlgoED25519,
	}
}

// sign returns why a login to the host is not signed.
func (s *signing) sign(t *testing.T) error {
	t.Helper()
	pending, err := s.Sign(t.Context(), &s.keys, []SignatureRequest{s.login(s.host)})
	if err != nil {
		return err
	}
	_, err = pending[0]()
	return err
}

// TestSign: what is refused has no row and no signature, and does not concern the rest of
// the list.
func TestSign(t *testing.T) {
	s := newSigning(t)
	before := len(events(t, s.Registry))
	file := SignatureRequest{Signature: Signature{Fingerprint: s.key.Fingerprint, Namespace: "git", Peer: "pid 8"}, Data: []byte("file")}
	gone := file
	gone.Fingerprint = "SHA256:gone"
	list := []SignatureRequest{
		s.login(s.host), gone, s.login(hostKey(t)), s.login(s.host, "hive-01"), s.login(s.host, "hive-01", "hive-02"), file,
	}
	pending, err := s.Sign(t.Context(), &s.keys, list)
	check(t, err)
	public, err := parsePublicKey(s.key.Type, s.key.PublicKey)
	check(t, err)
	for i, want := range []error{nil, ErrNotFound, ErrNotFound, nil, errNodesChanged, nil} {
		signature, err := pending[i]()
		if !errors.Is(err, want) || (signature == nil) != (want != nil) {
			t.Errorf("request %d: %v, want %v", i, err, want)
		}
		if signature != nil {
			check(t, public.Verify(list[i].Data, signature))
		}
	}
	login := event{string(ActionSignSSHKey), s.key.Fingerprint, `login to hive-01; user "ops"; pid 7 (/usr/bin/ssh)`}
	want := []event{login, login, {string(ActionSignSSHKey), s.key.Fingerprint, `data of namespace "git"; pid 8`}}
	if diff := cmp.Diff(want, events(t, s.Registry)[before:]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	check(t, s.Vault().View(t.Context(), func(tx *vault.Tx) error { _, err := tx.VerifyAudit(t.Context()); return err }))
}

// cutContext ends when it was asked for a value so often: an audit row asks for its actor.
type cutContext struct {
	context.Context
	cancel context.CancelFunc
	left   int
}

func (c *cutContext) Value(key any) any {
	if fmt.Sprintf("%T", key) == "vault.actorKey" {
		if c.left--; c.left == 0 {
			c.cancel()
		}
	}
	return c.Context.Value(key)
}

// TestSignNotCommitted: where the rows are not committed, nobody gets a signature.
func TestSignNotCommitted(t *testing.T) {
	s := newSigning(t)
	before := len(events(t, s.Registry))
	inner, cancel := context.WithCancel(t.Context())
	ctx := &cutContext{inner, cancel, 2} // the first row is written, and its signature begun
	pending, err := s.Sign(ctx, &s.keys, []SignatureRequest{s.login(s.host), s.login(s.host)})
	if !errors.Is(err, context.Canceled) || pending != nil || s.keys.Len() != 1 {
		t.Errorf("%d signatures, %v; %d keys", len(pending), err, s.keys.Len())
	}
	if n := len(events(t, s.Registry)); n != before {
		t.Errorf("%d rows, want %d", n, before)
	}
}

// TestSignUsed: the time of the last use follows, and not with each signature.
func TestSignUsed(t *testing.T) {
	s := newSigning(t)
	used := func() time.Time {
		k, err := s.SSHKey(t.Context(), s.key.Fingerprint)
		check(t, err)
		return k.Used
	}
	check(t, s.sign(t))
	first := used()
	check(t, s.sign(t))
	if age := time.Since(first); age > time.Hour || !used().Equal(first) {
		t.Errorf("last used at %v, then at %v", first, used())
	}
	check(t, s.v.Update(t.Context(), func(tx *vault.Tx) error {
		return updateSSHKeyUsed(t.Context(), tx, s.key.Fingerprint, tx.Now().Add(-usedLag))
	}))
	check(t, s.sign(t))
	if used().Before(first) {
		t.Errorf("last used at %v", used())
	}
}

// BenchmarkHostSSHKeys has a fleet of which every node uses one key, as an agent's request
// has it.
func BenchmarkHostSSHKeys(b *testing.B) {
	r := benchRegistry(b, 1000)
	ctx := b.Context()
	nodes, err := r.ListNodes(ctx)
	check(b, err)
	var names []string
	pins := map[string][]ssh.PublicKey{}
	for _, n := range nodes {
		names = append(names, n.Name)
		pins[n.Name] = []ssh.PublicKey{hostKey(b)}
	}
	_, err = r.TrustHostKeys(ctx, pins)
	check(b, err)
	_, err = r.GenerateSSHKey(ctx, "ed25519", "", names...)
	check(b, err)
	for b.Loop() {
		if keys, err := r.HostSSHKeys(ctx, pins["hive-00500"][0]); err != nil || len(keys) != 1 || len(keys[0].Nodes) != 1 {
			b.Fatal(len(keys), err)
		}
	}
}
