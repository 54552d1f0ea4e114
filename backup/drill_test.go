package backup_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func drillOptions(cfg vault.Config) backup.DrillOptions {
	return backup.DrillOptions{ReadOptions: backup.ReadOptions{Identities: cfg.Identities}, Program: "test"}
}

// noRehearsal checks that no throwaway vault is left.
func noRehearsal(t testing.TB, cfg vault.Config) {
	t.Helper()
	if _, err := os.Lstat(cfg.Path + ".drill"); err == nil {
		t.Error("the throwaway vault is left")
	}
}

// TestProve: a backup is tried out, and the receipt verifies with ssh-keygen.
func TestProve(t *testing.T) {
	cfg, v := fleet(t)
	file, c := create(t, v)
	before := content(t, v)
	opts := drillOptions(cfg)
	opts.Sequence = 1
	d, err := backup.Prove(t.Context(), v, bytes.NewReader(file), opts)
	if err != nil || d.Sequence != 1 || d.SumsSHA256 != c.SumsSHA256 || d.Failed != "" || !strings.HasPrefix(d.UnlockedBy, "recipient age1") {
		t.Fatalf("%+v, %v", d, err)
	}
	noRehearsal(t, cfg)
	if after := content(t, v); len(after.Nodes) != len(before.Nodes) {
		t.Error("the vault in place was changed")
	}
	var r backup.Receipt
	if err := json.Unmarshal(d.Receipt, &r); err != nil || r.Result != "ok" || r.Backup.Counts.Nodes != 2 || r.SHA256 != c.SHA256 {
		t.Errorf("%s, %v", d.Receipt, err)
	}
	for _, check := range []string{"every page", "the manifest", "recorded them", "own audit log", "nothing has changed since"} {
		if !strings.Contains(strings.Join(r.Checks, "; "), check) {
			t.Errorf("the receipt does not say %q: %q", check, r.Checks)
		}
	}
	verifyReceipt(t, v, d)

	records, err := backup.List(t.Context(), v)
	if err != nil || !records[0].Proven.Equal(d.At) {
		t.Errorf("%+v, %v", records, err)
	}
	drills, err := backup.Drills(t.Context(), v)
	if err != nil || len(drills) != 1 || !bytes.Equal(drills[0].Receipt, d.Receipt) || drills[0].Took != d.Took {
		t.Errorf("%+v, %v", drills, err)
	}
	if row := lastAuditRow(t, v); row.Action != "backup.drill" || row.Subject != "1" || row.Detail != "it restores" {
		t.Errorf("%+v", row)
	}
	// After a change the vault's own rows are not compared any more. A state is no change.
	r2 := registry.New(v)
	if err := r2.UpdateStatus(t.Context(), "hive-01", registry.StatusOffline); err != nil {
		t.Fatal(err)
	}
	for _, compared := range []bool{true, false} {
		d, err := backup.Prove(t.Context(), v, bytes.NewReader(file), opts)
		if err != nil || strings.Contains(string(d.Receipt), "nothing has changed since") != compared {
			t.Errorf("compared %t: %s, %v", compared, d.Receipt, err)
		}
		if _, err := r2.RemoveNode(t.Context(), "hive-01"); err != nil && compared {
			t.Fatal(err)
		}
	}
}

// verifyReceipt checks the receipt's signature as an operator does.
func verifyReceipt(t *testing.T, v *vault.Vault, d backup.Drill) {
	t.Helper()
	dir := t.TempDir()
	var meta vault.Meta
	err := v.View(t.Context(), func(tx *vault.Tx) (err error) {
		meta, err = tx.Meta(t.Context())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"allowed": []byte(vault.AllowedSigner(meta.Signer)), "r.sig": d.Signature} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []int{-1, len(d.Receipt) / 2} {
		receipt := bytes.Clone(d.Receipt)
		if at >= 0 {
			receipt[at] ^= 1
		}
		cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "rbee-vault", "-n", "rbee-vault-drill", "-s", "r.sig")
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(receipt)
		if out, err := cmd.CombinedOutput(); (err == nil) != (at < 0) {
			t.Errorf("changed at %d: %v: %s", at, err, out)
		}
	}
}

func lastAuditRow(t testing.TB, v *vault.Vault) (last vault.AuditRow) {
	t.Helper()
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		for row, err := range tx.AuditRows(t.Context(), 1) {
			if err != nil {
				return err
			}
			last = row
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// TestProveFails: whatever is wrong with a backup, or with what is known about it, fails the
// drill, is recorded, and leaves no throwaway vault.
func TestProveFails(t *testing.T) {
	exec := func(statement string) func(*testing.T, *vault.Vault, []byte) []byte {
		return func(t *testing.T, v *vault.Vault, file []byte) []byte {
			t.Helper()
			err := v.Update(t.Context(), func(tx *vault.Tx) error {
				_, err := tx.ExecContext(t.Context(), statement)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return file
		}
	}
	for name, tt := range map[string]struct {
		harm func(*testing.T, *vault.Vault, []byte) []byte
		want error
		says string
	}{
		"a byte":           {func(_ *testing.T, _ *vault.Vault, f []byte) []byte { f[len(f)-40] ^= 1; return f }, backup.ErrDamaged, ""},
		"its end":          {func(_ *testing.T, _ *vault.Vault, f []byte) []byte { return f[:len(f)-100] }, backup.ErrDamaged, ""},
		"another backup":   {func(t *testing.T, v *vault.Vault, _ []byte) []byte { f, _ := create(t, v); return f }, backup.ErrNotProven, "not backup 1"},
		"recorded hash":    {exec(`UPDATE backups SET sha256 = upper(sha256)`), backup.ErrNotProven, "its file is"},
		"recorded size":    {exec(`UPDATE backups SET size = size + 1`), backup.ErrNotProven, "its size is"},
		"recorded content": {exec(`UPDATE backups SET content_hash = upper(content_hash)`), backup.ErrNotProven, "its content is"},
		"recorded nodes":   {exec(`UPDATE backups SET nodes = 3`), backup.ErrNotProven, "number of nodes is 2"},
		"recorded keys":    {exec(`UPDATE backups SET ssh_keys = 3`), backup.ErrNotProven, "number of SSH keys is 2"},
		"recorded head":    {exec(`UPDATE backups SET audit_seq = audit_seq - 1`), backup.ErrNotProven, "its audit head is"},
		"recorded signer":  {exec(`UPDATE backups SET signer = 'SHA256:x'`), backup.ErrNotProven, "its signer is"},
		"recorded digest":  {exec(`UPDATE backups SET digest = 'x'`), backup.ErrNotProven, "audit log is another one"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, v := fleet(t)
			file, _ := create(t, v)
			file = tt.harm(t, v, file)
			opts := drillOptions(cfg)
			opts.Sequence = 1
			d, err := backup.Prove(t.Context(), v, bytes.NewReader(file), opts)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || d.Failed != err.Error() || d.Sequence != 1 {
				t.Errorf("%+v, %v", d, err)
			}
			if strings.Contains(string(d.Receipt), `"result": "ok"`) {
				t.Errorf("%s", d.Receipt)
			}
			verifyReceipt(t, v, d)
			noRehearsal(t, cfg)
			if records, err := backup.List(t.Context(), v); err != nil || !records[0].Proven.IsZero() {
				t.Errorf("it is proven: %+v, %v", records[0], err)
			}
			if row := lastAuditRow(t, v); row.Action != "backup.drill" || row.Detail != d.Failed {
				t.Errorf("%+v", row)
			}
		})
	}
}

// TestProveUnrecorded: a drill that says nothing about the backup is not recorded.
func TestProveUnrecorded(t *testing.T) {
	cfg, v := fleet(t)
	file, _ := create(t, v)
	other := elsewhere(t, cfg)
	made, err := backup.Restore(t.Context(), other, bytes.NewReader(file), backup.RestoreOptions{ReadOptions: backup.ReadOptions{Identities: cfg.Identities, Trust: func(context.Context, backup.Claim) error { return nil }}})
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := create(t, vaulttest.Open(t, other))
	cancelled, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, run := range map[string]func() (backup.Drill, error){
		"cancelled": func() (backup.Drill, error) {
			return backup.Prove(cancelled, v, cancellingReader{bytes.NewReader(file), cancel}, drillOptions(cfg))
		},
		"no identity": func() (backup.Drill, error) {
			return backup.Prove(t.Context(), v, bytes.NewReader(file), backup.DrillOptions{})
		},
		"untrusted": func() (backup.Drill, error) {
			return backup.Prove(t.Context(), v, bytes.NewReader(foreign), drillOptions(cfg))
		},
	} {
		if d, err := run(); err == nil || !d.At.IsZero() {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		noRehearsal(t, cfg)
	}
	if drills, err := backup.Drills(t.Context(), v); err != nil || len(drills) > 0 {
		t.Errorf("%+v, %v", drills, err)
	}
	// Another vault's backup is tried if its signer is trusted. It is nobody's proof here.
	opts := drillOptions(cfg)
	opts.Trust = backup.TrustSigners(vault.Fingerprint(made.Signer))
	if d, err := backup.Prove(t.Context(), v, bytes.NewReader(foreign), opts); err != nil || d.Sequence != 0 || d.At.IsZero() {
		t.Errorf("%+v, %v", d, err)
	}
	if records, err := backup.List(t.Context(), v); err != nil || !records[0].Proven.IsZero() {
		t.Errorf("it is proven: %+v, %v", records[0], err)
	}
}

// TestProveByAnother: a drill by an identity that opens the backup alone, and by one that opens
// neither.
func TestProveByAnother(t *testing.T) {
	cfg, v := fleet(t)
	another, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := backup.Create(t.Context(), v, backup.CreateOptions{Writer: &b, Recipients: []string{another.Recipient().String()}}); err != nil {
		t.Fatal(err)
	}
	opts := backup.DrillOptions{ReadOptions: backup.ReadOptions{Identities: []age.Identity{another}}}
	d, err := backup.Prove(t.Context(), v, bytes.NewReader(b.Bytes()), opts)
	if err != nil || d.UnlockedBy != "identity "+another.Recipient().String() {
		t.Errorf("%+v, %v", d, err)
	}
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	opts.Identities, opts.Sequence = []age.Identity{stranger}, 1
	if d, err := backup.Prove(t.Context(), v, bytes.NewReader(b.Bytes()), opts); !errors.Is(err, vault.ErrWrongKey) || d.Sequence != 1 || d.Failed == "" {
		t.Errorf("%+v, %v", d, err)
	}
	noRehearsal(t, cfg)
}

// cancellingReader cancels when it is first read.
type cancellingReader struct {
	io.Reader
	cancel func()
}

func (r cancellingReader) Read(p []byte) (int, error) {
	r.cancel()
	return r.Reader.Read(p[:min(len(p), 100)])
}
