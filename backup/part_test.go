package backup_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// readPart reads the nodes of a backup, or all of it.
func readPart(t testing.TB, cfg vault.Config, file []byte, c backup.Created, nodes ...string) *backup.Part {
	t.Helper()
	p, err := backup.ReadPart(t.Context(), bytes.NewReader(file), backup.PartOptions{ReadOptions: trusting(cfg, c), Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Wipe)
	return p
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// intact checks the audit log and the digest, with every page.
func intact(t testing.TB, v *vault.Vault) {
	t.Helper()
	must(t, v.CheckPages(t.Context()), v.View(t.Context(), func(tx *vault.Tx) error {
		_, err := tx.VerifyAudit(t.Context())
		return errors.Join(err, tx.VerifyContent(t.Context()))
	}))
}

// actions returns the actions of the audit log from the row after seq on.
func actions(t testing.TB, v *vault.Vault, seq int64) (list []string) {
	t.Helper()
	must(t, v.View(t.Context(), func(tx *vault.Tx) error {
		for row, err := range tx.AuditRows(t.Context(), seq+1) {
			if err != nil {
				return err
			}
			list = append(list, row.Action)
		}
		return nil
	}))
	return list
}

func rows(t testing.TB, v *vault.Vault) (n int64) {
	t.Helper()
	must(t, v.View(t.Context(), func(tx *vault.Tx) error {
		head, err := tx.AuditHead(t.Context())
		n = head.Seq
		return err
	}))
	return n
}

// TestMergeEverythingBack: what was removed or changed comes back as it was, with every audit
// row, and a dry run changes nothing.
func TestMergeEverythingBack(t *testing.T) {
	cfg, v := fleet(t)
	ctx, r := t.Context(), registry.New(v)
	loose, private := newSSHKey(t)
	must(t, v.Update(ctx, func(tx *vault.Tx) error {
		return errors.Join(registry.InsertSSHKey(ctx, tx, loose, private),
			tx.Audit(ctx, vault.Event{Action: registry.ActionAddSSHKey, Subject: loose.Fingerprint}))
	}))
	file, c := create(t, v)
	want := content(t, v)
	part := readPart(t, cfg, file, c)
	must(t, r.RemoveSSHKey(ctx, loose.Fingerprint, false))
	if _, err := part.Merge(ctx, v, backup.MergeOptions{}); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("%v, want ErrConflict: a key that no node used was removed since", err)
	}
	for _, name := range []string{"hive-01", "hive-02"} {
		_, err := r.RemoveNode(ctx, name)
		must(t, err)
	}
	empty, seq := content(t, v), rows(t, v)

	if _, err := part.Merge(ctx, v, backup.MergeOptions{}); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("%v, want ErrConflict: they were removed since", err)
	}
	plan, err := part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup, DryRun: true})
	must(t, err)
	if diff := cmp.Diff(empty, content(t, v)); diff != "" || rows(t, v) != seq {
		t.Errorf("a dry run changed the vault: %s", diff)
	}
	if _, err := part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup, Shown: &plan}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, content(t, v)); diff != "" {
		t.Error(diff)
	}
	wantActions := []string{"ssh-key.add", "ssh-key.add", "ssh-key.add", "node.add", "node.add", "ssh-key.assign", "host-key.trust", "ssh-key.assign", "ssh-key.rotate", "backup.merge"}
	if got := actions(t, v, seq); !slices.Equal(got, wantActions) {
		t.Errorf("audit rows: %v", got)
	}
	intact(t, v)
	seq = rows(t, v)
	if _, err := part.Merge(ctx, v, backup.MergeOptions{}); err != nil || rows(t, v) != seq {
		t.Errorf("a merge of nothing: %v, %d rows more", err, rows(t, v)-seq)
	}
}

// conflict is a change of hive-01, and the fields that differ after it.
type conflict struct {
	name   string
	change func(t *testing.T, r *registry.Registry) error
	fields []string
}

// conflicts has one of each kind. other is a host key that is not pinned.
func conflicts(other ssh.PublicKey) []conflict {
	return []conflict{
		{"field", func(t *testing.T, r *registry.Registry) error {
			return r.UpdateNode(t.Context(), "hive-01", func(n *registry.Node) error { n.SSHPort = 2222; return nil })
		}, []string{"ssh_port"}},
		{"label, note and jump", func(t *testing.T, r *registry.Registry) error {
			return r.UpdateNode(t.Context(), "hive-01", func(n *registry.Node) error {
				n.Labels, n.Note, n.ProxyJump = nil, "another", ""
				return nil
			})
		}, []string{"proxy_jump", "note", "labels"}},
		{"key", func(t *testing.T, r *registry.Registry) error {
			_, err := r.GenerateSSHKey(t.Context(), "ed25519", "new", "hive-01")
			return err
		}, []string{"ssh_key"}},
		{"no key", func(t *testing.T, r *registry.Registry) error { return r.AssignSSHKey(t.Context(), "", "hive-01") }, []string{"ssh_key"}},
		{"a pin that differs", func(t *testing.T, r *registry.Registry) error {
			_, err := r.ForgetHostKeys(t.Context(), "", "hive-01")
			if err == nil {
				_, err = r.TrustHostKey(t.Context(), "hive-01", other)
			}
			return err
		}, []string{"host_keys"}},
		{"a pin more", func(t *testing.T, r *registry.Registry) error {
			_, err := r.ForgetHostKeys(t.Context(), "", "hive-01")
			return err
		}, []string{"host_keys"}},
	}
}

// TestMergeConflicts: each kind of difference is a conflict that is named, live stays live,
// and the backup's side is taken to the letter but for the state.
func TestMergeConflicts(t *testing.T) {
	pinned := newHostKey(t)
	for _, tt := range conflicts(newHostKey(t)) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, v := fleet(t)
			ctx, r := t.Context(), registry.New(v)
			_, err := r.ForgetHostKeys(ctx, "", "hive-01")
			must(t, err)
			_, err = r.TrustHostKey(ctx, "hive-01", pinned)
			must(t, err, r.UpdateStatus(ctx, "hive-01", registry.StatusOnline))
			file, c := create(t, v)
			want, _ := r.GetNode(ctx, "hive-01")
			wantKeys := describe(t, r, "hive-01")
			must(t, tt.change(t, r), r.UpdateStatus(ctx, "hive-01", registry.StatusOffline))
			changed := content(t, v)

			part := readPart(t, cfg, file, c, "hive-01")
			report, err := part.Merge(ctx, v, backup.MergeOptions{})
			if !errors.Is(err, registry.ErrConflict) {
				t.Fatalf("%v, want ErrConflict", err)
			}
			var fields []string
			for _, d := range report.Nodes[0].Differences {
				fields = append(fields, d.Field)
			}
			if !slices.Equal(fields, tt.fields) {
				t.Errorf("fields %v, want %v", fields, tt.fields)
			}
			_, err = part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferLive})
			must(t, err)
			if diff := cmp.Diff(changed, content(t, v)); diff != "" {
				t.Errorf("live was preferred, and changed: %s", diff)
			}
			_, err = part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup})
			must(t, err)
			want.Status = registry.StatusOffline
			got, err := r.GetNode(ctx, "hive-01")
			must(t, err)
			if diff := cmp.Diff(want, got); diff != "" || describe(t, r, "hive-01") != wantKeys {
				t.Errorf("%s; keys %s, want %s", diff, describe(t, r, "hive-01"), wantKeys)
			}
			intact(t, v)
		})
	}
}

// describe names the keys of a node.
func describe(t testing.TB, r *registry.Registry, node string) string {
	t.Helper()
	var list []string
	key, err := r.NodeSSHKey(t.Context(), node)
	if err == nil {
		list = append(list, key.Fingerprint)
	} else if !errors.Is(err, registry.ErrNotFound) {
		t.Fatal(err)
	}
	pins, err := r.ListHostKeys(t.Context(), node)
	must(t, err)
	for _, k := range pins {
		list = append(list, k.PublicKey)
	}
	return strings.Join(list, " ")
}

// TestMergeSharedKey: a node that comes back does not take its key from the others, nor give
// it to them.
func TestMergeSharedKey(t *testing.T) {
	cfg, v := fleet(t)
	ctx, r := t.Context(), registry.New(v)
	file, c := create(t, v)
	shared, err := r.NodeSSHKey(ctx, "hive-01")
	must(t, err)
	newer, err := r.GenerateSSHKey(ctx, "ed25519", "newer", "hive-01", "hive-02") // ends the rotation
	must(t, err, r.RemoveSSHKey(ctx, shared.Fingerprint, false))
	report, err := readPart(t, cfg, file, c, "hive-01").Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup})
	must(t, err)
	if len(report.Keys) != 1 || report.Keys[0].Name != shared.Fingerprint || report.Keys[0].Removed == "" {
		t.Errorf("keys %+v, want the one that was removed since", report.Keys)
	}
	got, err := r.SSHKey(ctx, shared.Fingerprint)
	if err != nil || !slices.Equal(got.Nodes, []string{"hive-01"}) {
		t.Errorf("the shared key: %+v, %v", got, err)
	}
	if got, err := r.SSHKey(ctx, newer.Fingerprint); err != nil || !slices.Equal(got.Nodes, []string{"hive-02"}) {
		t.Errorf("the newer key: %+v, %v", got, err)
	}
	intact(t, v)
}

// TestMergeRotation: a rotation in the backup comes along with both keys; one that is under
// way in the vault is not disturbed.
func TestMergeRotation(t *testing.T) {
	cfg, v := fleet(t) // hive-02's key is being replaced
	ctx, r := t.Context(), registry.New(v)
	pending, c := create(t, v)
	before, err := r.ListKeyRotations(ctx)
	must(t, err, r.SwitchKeyRotation(ctx, "hive-02"))

	part := readPart(t, cfg, pending, c, "hive-02")
	if _, err := part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup}); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("%v, want ErrInUse", err)
	}
	_, err = part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferLive})
	must(t, err)
	// The rotation does not keep another field from coming back.
	switched, c2 := create(t, v)
	must(t, r.UpdateNode(ctx, "hive-02", func(n *registry.Node) error { n.SSHPort = 2222; return nil }))
	_, err = readPart(t, cfg, switched, c2, "hive-02").Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup})
	must(t, err)
	if n, err := r.GetNode(ctx, "hive-02"); err != nil || n.SSHPort != 22 {
		t.Errorf("port %d, %v", n.SSHPort, err)
	}

	_, err = r.EndKeyRotation(ctx, "hive-02")
	must(t, err)
	_, err = part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup})
	must(t, err)
	after, err := r.ListKeyRotations(ctx)
	if err != nil || !slices.Equal(before, after) {
		t.Errorf("rotations %+v, %v, want %+v", after, err, before)
	}
	if key, err := r.NodeSSHKey(ctx, "hive-02"); err != nil || key.Fingerprint != before[0].Old {
		t.Errorf("the node's key is %s, %v", key.Fingerprint, err)
	}
	intact(t, v)
}

// TestMergeNames: nodes that were renamed since, and jumps that lead nowhere.
func TestMergeNames(t *testing.T) {
	cfg, v := fleet(t) // hive-01 jumps through hive-02
	ctx, r := t.Context(), registry.New(v)
	file, c := create(t, v)
	must(t, r.RenameNode(ctx, "hive-02", "bastion"))
	_, err := readPart(t, cfg, file, c).Merge(ctx, v, backup.MergeOptions{})
	if !errors.Is(err, registry.ErrConflict) || !strings.Contains(err.Error(), `renamed (node_name: "hive-02" -> "bastion")`) {
		t.Errorf("%v, want the name that it has now", err)
	}
	one := readPart(t, cfg, file, c, "hive-01")
	_, err = one.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup})
	missing, ok := errors.AsType[*registry.MissingJumpError](err)
	if !ok || missing.Jump != "hive-02" || !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("%v, want a jump through a node that is missing", err)
	}
	// A circle that only both sides together make.
	must(t, r.RenameNode(ctx, "bastion", "hive-02"), r.UpdateNode(ctx, "hive-01", func(n *registry.Node) error { n.ProxyJump = ""; return nil }),
		r.UpdateNode(ctx, "hive-02", func(n *registry.Node) error { n.ProxyJump = "hive-01"; return nil }))
	was := content(t, v)
	if _, err := one.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup}); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("%v, want ErrInvalid for a circle", err)
	}
	if diff := cmp.Diff(was, content(t, v)); diff != "" {
		t.Error(diff)
	}
	if _, err := backup.ReadPart(ctx, bytes.NewReader(file), backup.PartOptions{ReadOptions: trusting(cfg, c), Nodes: []string{"hive-9*"}}); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

// TestMergeChangedMeanwhile: only what was shown is done.
func TestMergeChangedMeanwhile(t *testing.T) {
	cfg, v := fleet(t)
	ctx, r := t.Context(), registry.New(v)
	file, c := create(t, v)
	change := func(port uint16) error {
		return r.UpdateNode(ctx, "hive-02", func(n *registry.Node) error { n.SSHPort = port; return nil })
	}
	must(t, change(2222))
	part := readPart(t, cfg, file, c)
	plan, err := part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup, DryRun: true})
	must(t, err, change(2223))
	was := content(t, v)
	if _, err := part.Merge(ctx, v, backup.MergeOptions{Prefer: registry.PreferBackup, Shown: &plan}); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	if diff := cmp.Diff(was, content(t, v)); diff != "" {
		t.Error(diff)
	}
}

// TestMergeIntoAnotherVault: a backup of another vault says nothing about what was removed
// from this one, and a restored vault goes on with its origin's log.
func TestMergeIntoAnotherVault(t *testing.T) {
	cfg, v := fleet(t)
	ctx := t.Context()
	file, c := create(t, v)
	other := vaulttest.New(t)
	must(t, registry.New(other).CreateNode(ctx, node("hive-02")))
	_, err := registry.New(other).RemoveNode(ctx, "hive-02")
	must(t, err)
	_, err = readPart(t, cfg, file, c).Merge(ctx, other, backup.MergeOptions{})
	must(t, err)
	if got := content(t, other); len(got.Nodes) != 2 || len(got.Rotations) != 1 {
		t.Errorf("%+v", got)
	}
	intact(t, other)

	restored := elsewhere(t, cfg)
	_, err = backup.Restore(ctx, restored, bytes.NewReader(file), backup.RestoreOptions{ReadOptions: trusting(cfg, c)})
	must(t, err)
	second := vaulttest.Open(t, restored)
	_, err = registry.New(second).RemoveNode(ctx, "hive-01")
	must(t, err)
	if _, err := readPart(t, cfg, file, c).Merge(ctx, second, backup.MergeOptions{}); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("%v, want ErrConflict", err)
	}
}

// TestReadPartOfDamaged: of a damaged backup no part is read, wherever the damage is.
func TestReadPartOfDamaged(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	for _, data := range [][]byte{changed(file, len(file)-1), changed(file, len(file)/2), file[:len(file)-1], append(bytes.Clone(file), 0)} {
		_, err := backup.ReadPart(t.Context(), bytes.NewReader(data), backup.PartOptions{ReadOptions: trusting(cfg, c)})
		if !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%v, want ErrDamaged", err)
		}
	}
	_, err := backup.ReadPart(t.Context(), bytes.NewReader(file), backup.PartOptions{ReadOptions: backup.ReadOptions{Identities: cfg.Identities}})
	if !errors.Is(err, backup.ErrUntrusted) {
		t.Errorf("%v, want ErrUntrusted", err)
	}
}

// TestRestoreDryRun: a dry run refuses what the restore refuses, and leaves nothing.
func TestRestoreDryRun(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	must(t, v.Close())
	dryRun := backup.RestoreOptions{ReadOptions: trusting(cfg, c), DryRun: true}
	fresh := elsewhere(t, cfg)
	fresh.Path = strings.TrimSuffix(fresh.Path, "beehives.db") + "a/b/beehives.db"
	done, err := backup.Restore(t.Context(), fresh, bytes.NewReader(file), dryRun)
	if err != nil || len(done.Slots) != 1 || done.Manifest.Sequence != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := os.Lstat(strings.TrimSuffix(fresh.Path, "/b/beehives.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v: the directory is still there", err)
	}
	stray := elsewhere(t, cfg)
	must(t, os.WriteFile(stray.Path+"-wal", []byte("a log without its database"), 0o600))
	if _, err := backup.Restore(t.Context(), stray, bytes.NewReader(file), dryRun); !errors.Is(err, vault.ErrMissing) {
		t.Errorf("%v, want ErrMissing", err)
	}
	if _, err := backup.Restore(t.Context(), cfg, bytes.NewReader(file), dryRun); !errors.Is(err, vault.ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	before := tree(t, cfg.Path)
	dryRun.Replace = true
	done, err = backup.Restore(t.Context(), cfg, bytes.NewReader(file), dryRun)
	if err != nil || done.Aside == "" {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := backup.Restore(t.Context(), cfg, bytes.NewReader(changed(file, len(file)-1)), dryRun); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("%v, want ErrDamaged", err)
	}
	if diff := cmp.Diff(before, tree(t, cfg.Path)); diff != "" {
		t.Errorf("the dry run left something: %s", diff)
	}
}

// tree returns the files beside a database, but for locks, which are empty.
func tree(t testing.TB, db string) map[string]string {
	t.Helper()
	files := map[string]string{}
	dir, _ := filepath.Split(db)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		if !strings.HasSuffix(e.Name(), ".turn") {
			files[e.Name()] = string(data)
		}
	}
	return files
}

func newHostKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	k, _ := newSSHKey(t)
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.PublicKey))
	must(t, err)
	return public
}

// TestRestoreDryRunIsTheRestore: a dry run says of the recipients and of the file set aside
// what the restore then does.
func TestRestoreDryRunIsTheRestore(t *testing.T) {
	cfg, v := fleet(t)
	reader := newIdentity(t)
	slot, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: reader.Recipient().String()})
	must(t, err)
	file, c := create(t, v)
	must(t, v.RemoveSlot(t.Context(), slot.ID), v.Close())
	recipients := func(slots []vault.Slot) (list []string) {
		for _, s := range slots {
			list = append(list, s.Recipient)
		}
		return list
	}
	var said, done backup.Restored
	for _, dryRun := range []bool{true, false} {
		r, err := backup.Restore(t.Context(), cfg, bytes.NewReader(file), backup.RestoreOptions{ReadOptions: trusting(cfg, c), Replace: true, DryRun: dryRun})
		must(t, err)
		if dryRun {
			said = r
		} else {
			done = r
		}
	}
	if !slices.Equal(recipients(said.Slots), recipients(done.Slots)) || !slices.Equal(recipients(said.LeftOut), recipients(done.LeftOut)) || len(said.LeftOut) != 1 {
		t.Errorf("said: kept %v, left out %v; done: kept %v, left out %v", recipients(said.Slots), recipients(said.LeftOut), recipients(done.Slots), recipients(done.LeftOut))
	}
	if said.Path != done.Path || !strings.HasPrefix(said.Aside, cfg.Path+".replaced-") || !strings.HasPrefix(done.Aside, cfg.Path+".replaced-") || said.VaultID == done.VaultID {
		t.Errorf("said %q aside to %q, done %q to %q", said.Path, said.Aside, done.Path, done.Aside)
	}
	// Where no recipient is left, both refuse.
	other := vaulttest.Config(t)
	for _, dryRun := range []bool{true, false} {
		if _, err := backup.Restore(t.Context(), other, bytes.NewReader(file), backup.RestoreOptions{ReadOptions: trusting(cfg, c), Replace: true, DryRun: dryRun, ConfirmUnproven: func(context.Context, vault.UnprovenVault) error { return nil }}); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("dry run %t: %v, want ErrInvalid", dryRun, err)
		}
	}
}
