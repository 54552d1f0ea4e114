package registry

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func newRegistry(t testing.TB) *Registry {
	t.Helper()
	return New(vaulttest.New(t))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func get(t testing.TB, r *Registry, name string) Node {
	t.Helper()
	n, err := r.GetNode(t.Context(), name)
	check(t, err)
	return n
}

func wantNode(t testing.TB, r *Registry, want Node) {
	t.Helper()
	if diff := cmp.Diff(want, get(t, r, want.Name)); diff != "" {
		t.Errorf("node %s (-want +got):\n%s", want.Name, diff)
	}
}

func wantNames(t testing.TB, r *Registry, want ...string) {
	t.Helper()
	list, err := r.ListNodes(t.Context())
	check(t, err)
	var got []string
	for _, n := range list {
		got = append(got, n.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// event is an audit row of this package.
type event struct {
	Action, Subject, Detail string
}

// events returns the rows of the audit log that this package wrote.
func events(t testing.TB, r *Registry) []event {
	t.Helper()
	var list []event
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		rows, err := tx.QueryContext(t.Context(), `SELECT
			action,
			subject,
			detail
		FROM audit_log
		WHERE action LIKE 'node.%' OR action LIKE 'ssh-key.%'
		ORDER BY seq`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var (
				e               event
				subject, detail sql.NullString
			)
			if err := rows.Scan(&e.Action, &subject, &detail); err != nil {
				return err
			}
			e.Subject, e.Detail = subject.String, detail.String
			list = append(list, e)
		}
		return rows.Err()
	}))
	return list
}

// wantEvents compares the events after the first n.
func wantEvents(t testing.TB, r *Registry, n int, want ...event) {
	t.Helper()
	got := events(t, r)
	if len(got) < n {
		t.Fatalf("%d events, want more than %d", len(got), n)
	}
	if diff := cmp.Diff(want, append([]event(nil), got[n:]...)); diff != "" {
		t.Errorf("audit rows (-want +got):\n%s", diff)
	}
}

// update runs fn in a write transaction.
func update(t testing.TB, r *Registry, fn func(ctx context.Context, tx *vault.Tx) error) {
	t.Helper()
	check(t, r.Vault().Update(t.Context(), func(tx *vault.Tx) error {
		if err := fn(t.Context(), tx); err != nil {
			return err
		}
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("test")})
	}))
}

func execSQL(t testing.TB, r *Registry, query string, args ...any) {
	t.Helper()
	update(t, r, func(ctx context.Context, tx *vault.Tx) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}

// newSSHKey makes a key with its private half.
func newSSHKey(t testing.TB, nodes ...string) (SSHKey, []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	check(t, err)
	key, err := ssh.NewPublicKey(public)
	check(t, err)
	return SSHKey{
		Fingerprint: ssh.FingerprintSHA256(key),
		Type:        key.Type(),
		PublicKey:   publicKeyLine(key),
		Comment:     "ops@example.org",
		Created:     time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC),
		Nodes:       nodes,
	}, pem.EncodeToMemory(block)
}

func newHostKey(t testing.TB, node string) HostKey {
	t.Helper()
	k, _ := newSSHKey(t)
	return HostKey{
		Node:      node,
		Type:      k.Type,
		PublicKey: k.PublicKey,
		FirstSeen: k.Created,
		LastSeen:  k.Created.Add(time.Hour),
	}
}

func TestOpen(t *testing.T) {
	cfg := vaulttest.Config(t)
	r, err := Open(t.Context(), cfg)
	check(t, err)
	check(t, r.AddNode(t.Context(), testNode()))
	check(t, New(r.Vault()).Close())
	wantNode(t, r, testNode())
	check(t, r.Close())

	r, err = Open(t.Context(), cfg)
	check(t, err)
	wantNode(t, r, testNode())
	check(t, r.Close())

	cfg.Path += ".none"
	_, err = Open(t.Context(), cfg)
	wantErr(t, err, vault.ErrNoVault)
}
