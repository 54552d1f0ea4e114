package registry

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

const (
	testPublicKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	testFingerprint = "SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk"
)

func wantTotals(t testing.TB, r *Registry, want Totals) {
	t.Helper()
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		got, err := Counts(t.Context(), tx)
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return err
	}))
}

func wantKeys(t testing.TB, r *Registry, wantSSH []SSHKey, wantHost []HostKey) {
	t.Helper()
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		var gotSSH []SSHKey
		for k, err := range EachSSHKey(t.Context(), tx) {
			if err != nil {
				return err
			}
			gotSSH = append(gotSSH, k)
		}
		var gotHost []HostKey
		for k, err := range EachHostKey(t.Context(), tx) {
			if err != nil {
				return err
			}
			gotHost = append(gotHost, k)
		}
		if diff := cmp.Diff(wantSSH, gotSSH); diff != "" {
			t.Errorf("SSH keys (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(wantHost, gotHost); diff != "" {
			t.Errorf("host keys (-want +got):\n%s", diff)
		}
		return nil
	}))
}

// TestTransfer copies everything from one vault to another. It reads each private key
// while it iterates over the keys.
func TestTransfer(t *testing.T) {
	from, to := newRegistry(t), newRegistry(t)
	nodes := []Node{testNode(), bareNode("hive-02"), bareNode("hive-03")}
	for _, n := range nodes {
		check(t, from.AddNode(t.Context(), n))
	}
	shared, sharedPEM := newSSHKey(t, "hive-01", "hive-03")
	shared.Used = shared.Created.Add(time.Minute)
	spare, sparePEM := newSSHKey(t)
	spare.Comment = ""
	sshKeys := []SSHKey{shared, spare}
	slices.SortFunc(sshKeys, func(a, b SSHKey) int { return strings.Compare(a.Fingerprint, b.Fingerprint) })
	hostKeys := []HostKey{newHostKey(t, "hive-03"), newHostKey(t, "hive-01"), newHostKey(t, "hive-01")}
	update(t, from, func(ctx context.Context, tx *vault.Tx) error {
		err := errors.Join(InsertSSHKey(ctx, tx, shared, sharedPEM), InsertSSHKey(ctx, tx, spare, sparePEM))
		for _, k := range hostKeys {
			err = errors.Join(err, InsertHostKeys(ctx, tx, k))
		}
		return err
	})
	slices.SortFunc(hostKeys, func(a, b HostKey) int { return strings.Compare(a.Node+a.PublicKey, b.Node+b.PublicKey) })

	check(t, from.Vault().View(t.Context(), func(in *vault.Tx) error {
		return to.Vault().Update(t.Context(), func(out *vault.Tx) error {
			ctx := t.Context()
			for n, err := range EachNode(ctx, in) {
				if err == nil {
					err = InsertNodes(ctx, out, viaJSON(t, n))
				}
				if err != nil {
					return err
				}
			}
			for k, err := range EachSSHKey(ctx, in) {
				if err != nil {
					return err
				}
				private, err := PrivateKeyPEM(ctx, in, k.Fingerprint)
				if err == nil {
					err = InsertSSHKey(ctx, out, viaJSON(t, k), private)
				}
				if err != nil {
					return err
				}
			}
			for k, err := range EachHostKey(ctx, in) {
				if err == nil {
					err = InsertHostKeys(ctx, out, viaJSON(t, k))
				}
				if err != nil {
					return err
				}
			}
			return out.Audit(ctx, vault.Event{Action: vault.Action("test")})
		})
	}))

	got, err := to.ListNodes(t.Context())
	check(t, err)
	if diff := cmp.Diff(nodes, got); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	wantKeys(t, to, sshKeys, hostKeys)
	wantTotals(t, to, Totals{Nodes: 3, SSHKeys: 2, HostKeys: 3})
	wantEvents(t, to, 0)
	check(t, to.Vault().View(t.Context(), func(tx *vault.Tx) error {
		private, err := PrivateKeyPEM(t.Context(), tx, shared.Fingerprint)
		if !bytes.Equal(private, sharedPEM) {
			t.Error("the private key is another one")
		}
		_, none := PrivateKeyPEM(t.Context(), tx, "SHA256:none")
		wantErr(t, none, ErrNotFound)
		return err
	}))
	var sealed []byte
	check(t, to.Vault().View(t.Context(), func(tx *vault.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT private_key FROM ssh_keys LIMIT 1`).Scan(&sealed)
	}))
	if bytes.Contains(sealed, []byte("PRIVATE KEY")) {
		t.Error("the private key is not sealed")
	}
}

// viaJSON returns v after a round trip through JSON.
func viaJSON[T any](t *testing.T, v T) T {
	t.Helper()
	data, err := json.Marshal(v)
	check(t, err)
	var back T
	check(t, json.Unmarshal(data, &back))
	if diff := cmp.Diff(v, back); diff != "" {
		t.Errorf("after JSON (-want +got):\n%s", diff)
	}
	return back
}

func TestKeyJSON(t *testing.T) {
	const line = testPublicKey
	created := time.Date(2026, 1, 2, 3, 4, 5, 60e6, time.UTC)
	sshKey := SSHKey{Fingerprint: testFingerprint, Type: "ssh-ed25519", PublicKey: line, Comment: "a<b>", Created: created}
	got, err := sshKey.MarshalJSON()
	check(t, err)
	want := `{"fingerprint":"` + sshKey.Fingerprint + `","type":"ssh-ed25519","public_key":"` + line + `","comment":"a<b>",` +
		`"created":"2026-01-02T03:04:05.060Z","used":null,"nodes":[]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	viaJSON(t, sshKey)

	hostKey := HostKey{Node: "hive-01", Type: "ssh-ed25519", PublicKey: line, FirstSeen: created, LastSeen: created}
	gotHost, err := hostKey.MarshalJSON()
	check(t, err)
	wantHost := `{"node":"hive-01","type":"ssh-ed25519","public_key":"` + line + `","first_seen":"2026-01-02T03:04:05.060Z",` +
		`"last_seen":"2026-01-02T03:04:05.060Z"}`
	if string(gotHost) != wantHost {
		t.Errorf("got  %s\nwant %s", gotHost, wantHost)
	}
	viaJSON(t, hostKey)

	for name, in := range map[string]string{
		"missing":          strings.Replace(want, `,"used":null`, ``, 1),
		"null nodes":       strings.Replace(want, `[]`, `null`, 1),
		"unknown":          strings.Replace(want, `"used"`, `"uses"`, 1),
		"time without ms":  strings.Replace(want, `05.060Z`, `05Z`, 1),
		"time with offset": strings.Replace(want, `05.060Z`, `05.060+00:00`, 1),
		"time zero":        strings.Replace(want, `2026-01-02T03:04:05.060Z`, `1970-01-01T00:00:00.000Z`, 1),
		"fingerprint":      strings.Replace(want, `SHA256:`, `SHA256:x`, 1),
		"type":             strings.Replace(want, `"type":"ssh-ed25519"`, `"type":"ssh-rsa"`, 1),
		"key with comment": strings.Replace(want, line, line+" c", 1),
		"key with options": strings.Replace(want, line, `no-pty `+line, 1),
		"no key":           strings.Replace(want, line, `ssh-ed25519 AAAA`, 1),
		"comment":          strings.Replace(want, `a<b>`, `a\u001b`, 1),
		"nodes unsorted":   strings.Replace(want, `[]`, `["b","a"]`, 1),
		"nodes twice":      strings.Replace(want, `[]`, `["a","a"]`, 1),
		"node name":        strings.Replace(want, `[]`, `["-a"]`, 1),
	} {
		var k SSHKey
		if err := k.UnmarshalJSON([]byte(in)); !errors.Is(err, ErrInvalid) {
			t.Errorf("SSH key, %s: got %v", name, err)
		}
	}
	for name, in := range map[string]string{
		"missing":    strings.Replace(wantHost, `"node":"hive-01",`, ``, 1),
		"node":       strings.Replace(wantHost, `hive-01`, `-`, 1),
		"type":       strings.Replace(wantHost, `"type":"ssh-ed25519"`, `"type":"ssh-rsa"`, 1),
		"first":      strings.Replace(wantHost, `"first_seen":"2026`, `"first_seen":"1969`, 1),
		"last":       strings.Replace(wantHost, `"last_seen":"2026`, `"last_seen":"1969`, 1),
		"backwards":  strings.Replace(wantHost, `"last_seen":"2026`, `"last_seen":"2025`, 1),
		"null":       strings.Replace(wantHost, `"hive-01"`, `null`, 1),
		"public key": strings.Replace(wantHost, `AAAAC3`, `AAAAC4`, 1),
	} {
		var k HostKey
		if err := k.UnmarshalJSON([]byte(in)); !errors.Is(err, ErrInvalid) {
			t.Errorf("host key, %s: got %v", name, err)
		}
	}
}

func TestInsertRefuses(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), bareNode("hive-01")))
	check(t, r.AddNode(t.Context(), bareNode("hive-02")))
	key, private := newSSHKey(t, "hive-01")
	hostKey := newHostKey(t, "hive-01")
	update(t, r, func(ctx context.Context, tx *vault.Tx) error {
		return errors.Join(InsertSSHKey(ctx, tx, key, private), InsertHostKeys(ctx, tx, hostKey))
	})
	other, otherPEM := newSSHKey(t)
	with := func(change func(k *SSHKey)) SSHKey {
		k := other
		change(&k)
		return k
	}
	_, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	encrypted, err := ssh.MarshalPrivateKeyWithPassphrase(edPrivate, "", []byte("x"))
	check(t, err)
	for name, tt := range map[string]struct {
		insert func(ctx context.Context, tx *vault.Tx) error
		want   error
	}{
		"node again":     {func(ctx context.Context, tx *vault.Tx) error { return InsertNodes(ctx, tx, testNode()) }, ErrExists},
		"invalid node":   {func(ctx context.Context, tx *vault.Tx) error { return InsertNodes(ctx, tx, Node{Name: "hive-03"}) }, ErrInvalid},
		"host key again": {func(ctx context.Context, tx *vault.Tx) error { return InsertHostKeys(ctx, tx, hostKey) }, ErrExists},
		"host key without node": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertHostKeys(ctx, tx, newHostKey(t, "hive-09"))
		}, ErrNotFound},
		"invalid host key": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertHostKeys(ctx, tx, HostKey{Node: "hive-01"})
		}, ErrInvalid},
		"key again": {func(ctx context.Context, tx *vault.Tx) error {
			k := key
			k.Nodes = []string{"hive-02"}
			return InsertSSHKey(ctx, tx, k, private)
		}, ErrExists},
		"node has a key": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertSSHKey(ctx, tx, with(func(k *SSHKey) { k.Nodes = []string{"hive-01"} }), otherPEM)
		}, ErrExists},
		"no such node": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertSSHKey(ctx, tx, with(func(k *SSHKey) { k.Nodes = []string{"hive-09"} }), otherPEM)
		}, ErrNotFound},
		"another's private key": {func(ctx context.Context, tx *vault.Tx) error { return InsertSSHKey(ctx, tx, other, private) }, ErrInvalid},
		"fingerprint": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertSSHKey(ctx, tx, with(func(k *SSHKey) { k.Fingerprint = key.Fingerprint }), otherPEM)
		}, ErrInvalid},
		"type": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertSSHKey(ctx, tx, with(func(k *SSHKey) { k.Type = "ssh-rsa" }), otherPEM)
		}, ErrInvalid},
		"no key": {func(ctx context.Context, tx *vault.Tx) error { return InsertSSHKey(ctx, tx, other, nil) }, ErrInvalid},
		"two blocks": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertSSHKey(ctx, tx, other, append(slices.Clone(otherPEM), private...))
		}, ErrInvalid},
		"text before": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertSSHKey(ctx, tx, other, append([]byte("x\n"), otherPEM...))
		}, ErrInvalid},
		"passphrase": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertSSHKey(ctx, tx, other, pem.EncodeToMemory(encrypted))
		}, ErrInvalid},
		"too long": {func(ctx context.Context, tx *vault.Tx) error {
			return InsertSSHKey(ctx, tx, other, append(slices.Clone(otherPEM), bytes.Repeat([]byte("\n"), MaxPEM)...))
		}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			wantErr(t, r.Vault().Update(t.Context(), func(tx *vault.Tx) error { return tt.insert(t.Context(), tx) }), tt.want)
			wantTotals(t, r, Totals{Nodes: 2, SSHKeys: 1, HostKeys: 1})
		})
	}
}

func TestEachStopsAtBadRow(t *testing.T) {
	r := newRegistry(t)
	check(t, r.AddNode(t.Context(), bareNode("hive-01")))
	key, private := newSSHKey(t, "hive-01")
	update(t, r, func(ctx context.Context, tx *vault.Tx) error {
		return errors.Join(InsertSSHKey(ctx, tx, key, private), InsertHostKeys(ctx, tx, newHostKey(t, "hive-01")))
	})
	execSQL(t, r, `UPDATE beehives SET status = 'reachable'`)
	execSQL(t, r, `UPDATE ssh_keys SET comment = char(27)`)
	execSQL(t, r, `UPDATE host_keys SET first_seen = 'x'`)
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error {
		ctx := t.Context()
		for _, err := range EachNode(ctx, tx) {
			wantErr(t, err, ErrBadRow)
		}
		for _, err := range EachSSHKey(ctx, tx) {
			wantErr(t, err, ErrBadRow)
		}
		for _, err := range EachHostKey(ctx, tx) {
			wantErr(t, err, ErrBadRow)
		}
		return nil
	}))
}

func FuzzKeyJSON(f *testing.F) {
	f.Add([]byte(`{"fingerprint":"` + testFingerprint + `","type":"ssh-ed25519","public_key":"` + testPublicKey + `","comment":"ops@example.org",` +
		`"created":"2026-01-02T03:04:05.060Z","used":"2026-01-02T03:04:05.061Z","nodes":["hive-01","hive-02"]}`))
	f.Add([]byte(`{"node":"hive-01","type":"ssh-ed25519","public_key":"` + testPublicKey + `",` +
		`"first_seen":"2026-01-02T03:04:05.060Z","last_seen":"2026-01-02T03:04:05.060Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var k SSHKey
		if err := k.UnmarshalJSON(data); err == nil {
			viaJSON(t, k)
		} else if !errors.Is(err, ErrInvalid) || !cmp.Equal(k, SSHKey{}) {
			t.Fatal(err)
		}
		var h HostKey
		if err := h.UnmarshalJSON(data); err == nil {
			viaJSON(t, h)
		} else if !errors.Is(err, ErrInvalid) || !cmp.Equal(h, HostKey{}) {
			t.Fatal(err)
		}
	})
}
