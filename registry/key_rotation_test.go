package registry

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// rotating returns a registry with nodes that share a key.
func rotating(t *testing.T, nodes ...string) (*Registry, SSHKey) {
	t.Helper()
	r := newRegistry(t)
	for _, name := range nodes {
		check(t, r.AddNode(t.Context(), bareNode(name)))
	}
	key, err := r.GenerateSSHKey(t.Context(), "rsa", "fleet", nodes...)
	check(t, err)
	return r, key
}

func wantNodeKey(t *testing.T, r *Registry, node, fingerprint string) {
	t.Helper()
	key, err := r.NodeSSHKey(t.Context(), node)
	if err != nil || key.Fingerprint != fingerprint {
		t.Errorf("%s uses %q, want %q: %v", node, key.Fingerprint, fingerprint, err)
	}
}

func wantRotations(t *testing.T, r *Registry, want ...KeyRotation) {
	t.Helper()
	got, err := r.ListKeyRotations(t.Context())
	check(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rotations (-want +got):\n%s", diff)
	}
}

func TestKeyRotation(t *testing.T) {
	ctx := t.Context()
	r, old := rotating(t, "hive-01", "hive-02")
	n := len(events(t, r))
	first, err := r.BeginKeyRotation(ctx, "hive-01")
	check(t, err)
	want := KeyRotation{Node: "hive-01", Old: old.Fingerprint, New: first.New, Step: RotationPending}
	if first != want {
		t.Errorf("got %+v", first)
	}
	wantNodeKey(t, r, "hive-01", old.Fingerprint)
	again, err := r.BeginKeyRotation(ctx, "hive-01")
	check(t, err)
	if again != first {
		t.Errorf("another rotation was begun: %+v", again)
	}
	_, early := r.EndKeyRotation(ctx, "hive-01")
	wantErr(t, early, ErrInvalid)
	check(t, r.SaveKeyRotations(ctx, "hive-01", "hive-02")) // nothing is switched
	wantRotations(t, r, want)

	check(t, r.SwitchKeyRotation(ctx, "hive-01"))
	check(t, r.SwitchKeyRotation(ctx, "hive-01"))
	wantNodeKey(t, r, "hive-01", first.New)
	want.Step = RotationSwitched
	wantRotations(t, r, want)
	check(t, r.SaveKeyRotations(ctx, "hive-01", "hive-02"))
	check(t, r.SwitchKeyRotation(ctx, "hive-01"))
	want.Step = RotationSaved
	wantRotations(t, r, want)
	users, err := r.EndKeyRotation(ctx, "hive-01")
	check(t, err)
	if diff := cmp.Diff([]string{"hive-02"}, users); diff != "" {
		t.Error(diff)
	}
	wantRotations(t, r)
	keys := old.Fingerprint + " -> " + first.New
	wantEvents(t, r, n,
		event{"ssh-key.generate", first.New, "ssh-ed25519 hive-01"},
		event{"ssh-key.rotate", "hive-01", "step: none -> pending; ssh key: " + keys},
		event{"ssh-key.assign", "hive-01", "ssh key: " + keys},
		event{"ssh-key.rotate", "hive-01", "step: pending -> switched; ssh key: " + keys},
		event{"ssh-key.rotate", "hive-01", "step: switched -> saved; ssh key: " + keys},
		event{"ssh-key.rotate", "hive-01", "step: saved -> none; ssh key: " + keys},
	)

	// The last user of the old key, under a backup that was not made.
	second, err := r.BeginKeyRotation(ctx, "hive-02")
	check(t, err)
	key, err := r.SSHKey(ctx, second.New)
	check(t, err)
	if key.Comment != "fleet" || key.Type != ssh.KeyAlgoED25519 {
		t.Errorf("the new key: %+v", key)
	}
	check(t, r.SwitchKeyRotation(ctx, "hive-02"))
	n = len(events(t, r))
	users, err = r.EndKeyRotation(ctx, "hive-02")
	check(t, err)
	if users != nil {
		t.Errorf("used by %v", users)
	}
	keys = old.Fingerprint + " -> " + second.New
	wantEvents(t, r, n,
		event{"ssh-key.rotate", "hive-02", "step: switched -> none; ssh key: " + keys},
		event{"ssh-key.remove", old.Fingerprint, "replaced by " + second.New},
	)
	_, err = r.SSHKey(ctx, old.Fingerprint)
	wantErr(t, err, ErrNotFound)

	for _, node := range []string{"hive-02", "nobody"} {
		wantErr(t, r.SwitchKeyRotation(ctx, node), ErrNotFound)
		_, err := r.EndKeyRotation(ctx, node)
		wantErr(t, err, ErrNotFound)
	}
	check(t, r.AssignSSHKey(ctx, "", "hive-02"))
	for _, node := range []string{"hive-02", "nobody"} {
		_, err := r.BeginKeyRotation(ctx, node)
		wantErr(t, err, ErrNotFound)
	}
}

// TestKeyRotationKeepsKeys: the keys of a rotation are not removed under it, and what it is
// about does not change under it.
func TestKeyRotationKeepsKeys(t *testing.T) {
	ctx := t.Context()
	r, old := rotating(t, "hive-01", "hive-02")
	begin := func(node string) KeyRotation {
		t.Helper()
		k, err := r.BeginKeyRotation(ctx, node)
		check(t, err)
		return k
	}
	there := func(want bool, fingerprint string) {
		t.Helper()
		if _, err := r.SSHKey(ctx, fingerprint); (err == nil) != want {
			t.Errorf("key %s: %v", fingerprint, err)
		}
	}
	first := begin("hive-01")
	check(t, r.RenameNode(ctx, "hive-01", "hive-09"))
	first.Node = "hive-09"
	wantRotations(t, r, first)

	err := r.RemoveSSHKey(ctx, first.New, false)
	wantErr(t, err, ErrInUse)
	if !strings.Contains(err.Error(), "hive-09") {
		t.Error(err)
	}
	// The rotation of another node still has to remove the old key there.
	second := begin("hive-02")
	check(t, r.SwitchKeyRotation(ctx, "hive-02"))
	check(t, r.SwitchKeyRotation(ctx, "hive-09"))
	users, err := r.EndKeyRotation(ctx, "hive-09")
	check(t, err)
	if diff := cmp.Diff([]string{"hive-02"}, users); diff != "" {
		t.Error(diff)
	}
	there(true, old.Fingerprint)

	// Another key ends it. Nothing is lost.
	check(t, r.AssignSSHKey(ctx, first.New, "hive-02"))
	wantRotations(t, r)
	there(true, old.Fingerprint)
	there(true, second.New)

	// So does the removal of one of its keys, and of the node.
	third := begin("hive-09")
	check(t, r.RemoveSSHKey(ctx, third.New, true))
	wantRotations(t, r)
	wantNodeKey(t, r, "hive-09", first.New)
	third = begin("hive-09")
	_, err = r.RemoveNode(ctx, "hive-09")
	check(t, err)
	wantRotations(t, r)
	there(false, third.New)
	there(true, first.New) // hive-02 uses it

	// Rows of another program.
	fourth := begin("hive-02")
	execSQL(t, r, `UPDATE beehive_ssh_keys SET fingerprint = ?`, fourth.New)
	wantErr(t, r.SwitchKeyRotation(ctx, "hive-02"), ErrBadRow)
	execSQL(t, r, `UPDATE beehive_ssh_keys SET fingerprint = ?`, fourth.Old)
	execSQL(t, r, `UPDATE key_rotations SET step = 'saved'`)
	_, err = r.EndKeyRotation(ctx, "hive-02")
	wantErr(t, err, ErrBadRow)
	execSQL(t, r, `UPDATE key_rotations SET node_name = 'hive-02', old_fingerprint = new_fingerprint`)
	_, err = r.ListKeyRotations(ctx)
	wantErr(t, err, ErrBadRow)
}

// TestRemovedNodeLeavesKeys: the key of a removed node stays while another node's rotation
// needs it.
func TestRemovedNodeLeavesKeys(t *testing.T) {
	ctx := t.Context()
	r, old := rotating(t, "hive-01", "hive-02")
	_, err := r.BeginKeyRotation(ctx, "hive-02")
	check(t, err)
	check(t, r.SwitchKeyRotation(ctx, "hive-02"))
	_, err = r.RemoveNode(ctx, "hive-01")
	check(t, err)
	_, err = r.SSHKey(ctx, old.Fingerprint)
	check(t, err)
	_, err = r.EndKeyRotation(ctx, "hive-02")
	check(t, err)
	_, err = r.SSHKey(ctx, old.Fingerprint)
	wantErr(t, err, ErrNotFound)
}

func TestKeyRotationTransfer(t *testing.T) {
	r, old := rotating(t, "hive-01", "hive-02")
	other, err := r.GenerateSSHKey(t.Context(), "ed25519", "")
	check(t, err)
	good := KeyRotation{Node: "hive-01", Old: old.Fingerprint, New: other.Fingerprint, Step: RotationSaved}
	viaJSON(t, good)
	insert := func(k KeyRotation) error {
		return r.Vault().Update(t.Context(), func(tx *vault.Tx) error {
			if err := InsertKeyRotation(t.Context(), tx, k); err != nil {
				return err
			}
			return tx.Audit(t.Context(), vault.Event{Action: vault.Action("test")})
		})
	}
	check(t, insert(good))
	wantErr(t, insert(good), ErrExists)
	missing := "SHA256:" + strings.Repeat("A", 43)
	for name, tt := range map[string]struct {
		change func(k *KeyRotation)
		want   error
	}{
		"no such node":    {func(k *KeyRotation) { k.Node = "nobody" }, ErrNotFound},
		"no such old key": {func(k *KeyRotation) { k.Old = missing }, ErrNotFound},
		"no such new key": {func(k *KeyRotation) { k.New = missing }, ErrNotFound},
		"one key":         {func(k *KeyRotation) { k.New = k.Old }, ErrInvalid},
		"node name":       {func(k *KeyRotation) { k.Node = "-x" }, ErrInvalid},
		"old":             {func(k *KeyRotation) { k.Old = "x" }, ErrInvalid},
		"step":            {func(k *KeyRotation) { k.Step = "done" }, ErrInvalid},
	} {
		k := good
		k.Node = "hive-02"
		tt.change(&k)
		if err := insert(k); err == nil {
			t.Errorf("%s is accepted", name)
		} else {
			wantErr(t, err, tt.want)
		}
	}
	line, err := good.MarshalJSON()
	check(t, err)
	for name, in := range map[string]string{
		"missing": strings.Replace(string(line), `,"step":"saved"`, ``, 1),
		"unknown": strings.Replace(string(line), `"step"`, `"stage"`, 1),
		"step":    strings.Replace(string(line), `saved`, `x`, 1),
	} {
		var k KeyRotation
		wantErr(t, k.UnmarshalJSON([]byte(in)), ErrInvalid)
		if k != (KeyRotation{}) {
			t.Errorf("%s: %+v", name, k)
		}
	}
	wantTotals(t, r, Totals{Nodes: 2, SSHKeys: 2, Rotations: 1})
	check(t, r.Vault().View(t.Context(), func(tx *vault.Tx) error { return tx.VerifyContent(context.Background()) }))
}

// TestKeySigner signs with a key that the node does not use.
func TestKeySigner(t *testing.T) {
	r, _ := rotating(t, "hive-01")
	rotation, err := r.BeginKeyRotation(t.Context(), "hive-01")
	check(t, err)
	n := len(events(t, r))
	signer, err := r.KeySigner(t.Context(), rotation.New, "hive-01")
	check(t, err)
	wantEvents(t, r, n, event{"ssh-key.use", rotation.New, "hive-01"})
	signature, err := signer.Sign(nil, []byte("x"))
	check(t, err)
	if err := signer.PublicKey().Verify([]byte("x"), signature); err != nil || ssh.FingerprintSHA256(signer.PublicKey()) != rotation.New {
		t.Errorf("%s: %v", ssh.FingerprintSHA256(signer.PublicKey()), err)
	}
	_, err = r.KeySigner(t.Context(), "SHA256:none", "hive-01")
	wantErr(t, err, ErrNotFound)
}
