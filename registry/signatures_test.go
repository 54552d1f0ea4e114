package registry

import (
	"context"
	"crypto/rand"
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

// TestAuditSignatures: the rows stand before a signer is returned, a key that is gone has
// none, and the rest of the list is not concerned.
func TestAuditSignatures(t *testing.T) {
	r := newRegistry(t)
	ctx := t.Context()
	key, err := r.GenerateSSHKey(ctx, "ed25519", "")
	check(t, err)
	before := len(events(t, r))
	list := []Signature{
		{Fingerprint: key.Fingerprint, Nodes: []string{"hive-01", "hive-02"}, User: "ops", Peer: "pid 7 (/usr/bin/ssh)"},
		{Fingerprint: "SHA256:gone", Nodes: []string{"hive-01"}, User: "ops", Peer: "pid 7"},
		{Fingerprint: key.Fingerprint, Namespace: "git", Peer: "pid 8"},
	}
	signers, err := r.AuditSignatures(ctx, list)
	check(t, err)
	want := []event{
		{string(ActionSignSSHKey), key.Fingerprint, `login to hive-01, hive-02; user "ops"; pid 7 (/usr/bin/ssh)`},
		{string(ActionSignSSHKey), key.Fingerprint, `data of namespace "git"; pid 8`},
	}
	if diff := cmp.Diff(want, events(t, r)[before:]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(signers) != 3 || signers[0] == nil || signers[1] != nil || signers[2] == nil {
		t.Fatalf("signers %v", signers)
	}
	sig, err := signers[2].SignWithAlgorithm(rand.Reader, []byte("data"), ssh.KeyAlgoED25519)
	check(t, err)
	check(t, signers[2].PublicKey().Verify([]byte("data"), sig))
	keys, err := r.ListSSHKeys(ctx)
	check(t, err)
	if age := time.Since(keys[0].Used); age > time.Hour {
		t.Errorf("last used at %v", keys[0].Used)
	}

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if signers, err := r.AuditSignatures(cancelled, list); err == nil || signers != nil {
		t.Errorf("%v, %v", signers, err)
	}
	if n := len(events(t, r)); n != before+2 {
		t.Errorf("%d rows after an error, want %d", n, before+2)
	}
	later, err := r.AuditSignatures(ctx, list[:1])
	check(t, err)
	check(t, r.RemoveSSHKey(ctx, key.Fingerprint, true))
	if _, err := later[0].Sign(rand.Reader, []byte("data")); err == nil {
		t.Error("a key that was removed still signs")
	}
	check(t, r.Vault().View(ctx, func(tx *vault.Tx) error { _, err := tx.VerifyAudit(ctx); return err }))
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
