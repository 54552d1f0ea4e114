package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

const page = 4096

// configuration returns what the digest covers, as lookups and scans read it.
func configuration(ctx context.Context, v *vault.Vault) (text string, err error) {
	err = v.View(ctx, func(tx *vault.Tx) error {
		for _, query := range []string{
			`SELECT node_name || ' ' || ssh_host || ' ' || ssh_port FROM beehives NOT INDEXED ORDER BY 1`,
			`SELECT node_name || ' ' || coalesce(proxy_jump, '') || ' ' || coalesce(note, '') FROM node_details NOT INDEXED ORDER BY 1`,
			`SELECT node_name || ' ' || key || '=' || value FROM node_labels NOT INDEXED ORDER BY 1`,
			`SELECT node_name || ' ' || public_key FROM host_keys NOT INDEXED ORDER BY 1`,
			`SELECT k.fingerprint || ' ' || hex(k.private_key) FROM ssh_keys AS k NOT INDEXED ORDER BY 1`,
			`SELECT node_name || ' ' || fingerprint FROM beehive_ssh_keys NOT INDEXED ORDER BY 1`,
			`SELECT node_name || ' ' || step FROM key_rotations NOT INDEXED ORDER BY 1`,
			`SELECT recipient || ' ' || wrapped FROM slots NOT INDEXED ORDER BY 1`,
			`SELECT keyring || ' ' || slots_seq FROM vault_meta`,
		} {
			rows, err := tx.QueryContext(ctx, query)
			if err != nil {
				return err
			}
			for rows.Next() {
				var row string
				if err := rows.Scan(&row); err != nil {
					rows.Close()
					return err
				}
				text += row + "\n"
			}
			if err := rows.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	return text, err
}

// everything runs the checks of doctor and `audit verify`.
func everything(ctx context.Context, v *vault.Vault) error {
	if err := v.CheckPages(ctx); err != nil {
		return err
	}
	return v.View(ctx, func(tx *vault.Tx) error {
		if _, err := tx.VerifyAudit(ctx); err != nil {
			return err
		}
		return tx.VerifyContent(ctx)
	})
}

// history makes a vault and changes it several times. It returns the file after each change.
func history(t *testing.T, cfg vault.Config) (versions [][]byte) {
	t.Helper()
	change := func(do func(tx *vault.Tx) error) {
		t.Helper()
		v := vaulttest.Open(t, cfg)
		err := v.Update(t.Context(), func(tx *vault.Tx) error {
			if err := do(tx); err != nil {
				return err
			}
			return tx.Audit(t.Context(), vault.Event{Action: vault.Action("node.update"), Subject: "hive-01"})
		})
		if err := errors.Join(err, v.Close()); err != nil {
			t.Fatal(err)
		}
		versions = append(versions, read(t, cfg.Path))
	}
	exec := func(query string) func(*vault.Tx) error {
		return func(tx *vault.Tx) error {
			_, err := tx.ExecContext(t.Context(), query)
			return err
		}
	}
	change(func(tx *vault.Tx) error {
		for i := range 40 { // more than one page of them
			if err := insertNode(t.Context(), tx, fmt.Sprintf("hive-%02d", i)); err != nil {
				return err
			}
		}
		if err := errors.Join(insertKey(t.Context(), tx, "hive-01"), insertKey(t.Context(), tx, "hive-02")); err != nil {
			return err
		}
		return exec(`INSERT INTO key_rotations VALUES ('hive-01', 'SHA256:hive-01', 'SHA256:hive-02', 'pending')`)(tx)
	})
	change(exec(`INSERT INTO host_keys VALUES ('hive-01', 'ssh-ed25519', 'ssh-ed25519 AAAAold', 1, 1);
		INSERT INTO node_details VALUES ('hive-01', 'hive-02', 'old');
		INSERT INTO node_labels VALUES ('hive-01', 'rack', 'old')`))
	v := vaulttest.Open(t, cfg)
	slot, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient})
	if err := errors.Join(err, v.Close()); err != nil {
		t.Fatal(err)
	}
	versions = append(versions, read(t, cfg.Path))
	change(exec(`UPDATE beehives SET ssh_host = 'newer.example.org' WHERE node_name = 'hive-01';
		UPDATE node_details SET proxy_jump = 'hive-03' WHERE node_name = 'hive-01';
		UPDATE node_labels SET value = 'new' WHERE node_name = 'hive-01'`))
	change(exec(`DELETE FROM host_keys WHERE node_name = 'hive-01'; UPDATE key_rotations SET step = 'saved'`))
	v = vaulttest.Open(t, cfg)
	if err := errors.Join(v.RemoveSlot(t.Context(), slot.ID), v.Close()); err != nil {
		t.Fatal(err)
	}
	versions = append(versions, read(t, cfg.Path))
	change(exec(`UPDATE beehives SET ssh_port = 2222 WHERE node_name = 'hive-30'`))
	return versions
}

// TestPageReplay puts older pages of the same key into the newest file, one by one and in
// pairs. Either everything that is read is the newest, or the checks report it. A backup or a
// rotation never copies an older row. Only the keyring's anchor shows that the end of the audit
// log is the newest: without it, a set of pages that undoes the last changes together with
// their audit rows is not noticed.
func TestPageReplay(t *testing.T) {
	cfg, k, _ := keyringVault(t)
	versions := history(t, cfg)
	ctx := t.Context()
	newest := versions[len(versions)-1]
	v := vaulttest.Open(t, cfg)
	want, err := configuration(ctx, v)
	if err := errors.Join(err, everything(ctx, v), v.Close()); err != nil {
		t.Fatal(err)
	}
	slots := read(t, cfg.Path+".slots")
	items := map[string]string{}
	accounts, err := k.Accounts()
	for _, account := range accounts {
		items[account], _ = k.Get(ctx, account)
	}
	if err != nil || len(items) != 2 {
		t.Fatal(items, err)
	}
	noticed, harmless, unnoticed := 0, 0, 0
	try := func(what string, file []byte, carry bool) {
		t.Helper()
		write(t, cfg.Path, file)
		write(t, cfg.Path+".slots", slots)
		for _, suffix := range []string{"-wal", "-shm"} {
			removeIfThere(t, cfg.Path+suffix)
		}
		for account, value := range items { // a rotation changed them
			if err := k.Set(ctx, account, value); err != nil {
				t.Fatal(err)
			}
		}
		v, err := vault.Open(ctx, cfg)
		if err != nil {
			noticed++
			return
		}
		defer v.Close()
		got, err := configuration(ctx, v)
		if err == nil && slotLines(got) != slotLines(want) {
			t.Errorf("%s: opened with older slots", what)
		}
		found := everything(ctx, v)
		switch {
		case err != nil || found != nil:
			noticed++
		case got == want:
			harmless++
		default:
			unnoticed++
			t.Errorf("%s: older rows, and nothing says so", what)
		}
		if !carry {
			return
		}
		if _, err := backup.Create(ctx, v, backup.CreateOptions{Writer: new(bytes.Buffer)}); err == nil && got != want {
			t.Errorf("%s: a backup carries older rows", what)
		}
		if _, err := v.Rotate(ctx); err == nil {
			now, err := configuration(ctx, v)
			if strip(now) != strip(want) || err != nil {
				t.Errorf("%s: a rotation carried older rows on: %v", what, err)
			}
		}
	}
	for i, version := range versions[:len(versions)-1] {
		var differ []int
		for p := 0; p*page < len(newest) && p*page < len(version); p++ {
			if !bytes.Equal(newest[p*page:(p+1)*page], version[p*page:(p+1)*page]) {
				differ = append(differ, p)
			}
		}
		for n, p := range differ {
			one := bytes.Clone(newest)
			copy(one[p*page:(p+1)*page], version[p*page:])
			try(fmt.Sprintf("page %d of version %d", p, i), one, true)
			for _, q := range differ[n+1:] {
				two := bytes.Clone(one)
				copy(two[q*page:(q+1)*page], version[q*page:])
				try(fmt.Sprintf("pages %d and %d of version %d", p, q, i), two, false)
			}
		}
	}
	t.Logf("%d noticed, %d harmless, %d unnoticed", noticed, harmless, unnoticed)
	if noticed == 0 {
		t.Error("nothing was noticed")
	}
}

func slotLines(text string) string {
	_, after, _ := strings.Cut(text, "age1")
	return after
}

// strip removes what a rotation seals, wraps or counts again.
func strip(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "SHA256:") || strings.Contains(line, "BEGIN AGE") || !strings.Contains(line, "hive-") {
			continue
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// TestAcceptedReplay: if the operator accepts older rows, they are listed and audited, and a
// new digest begins with them.
func TestAcceptedReplay(t *testing.T) {
	cfg := vaulttest.Config(t)
	versions := history(t, cfg)
	newest, old := versions[len(versions)-1], versions[3] // a pin was removed in between
	file := bytes.Clone(newest)
	for p := 1; p*page < len(old); p++ {
		copy(file[p*page:(p+1)*page], old[p*page:(p+1)*page])
		write(t, cfg.Path, file)
		v, err := vault.Open(t.Context(), cfg)
		if err != nil {
			file = bytes.Clone(newest)
			continue
		}
		err = v.View(t.Context(), func(tx *vault.Tx) error { return tx.VerifyContent(t.Context()) })
		v.Close()
		if errors.Is(err, vault.ErrRollback) {
			break
		}
		file = bytes.Clone(newest)
	}
	accepting := cfg
	accepting.AcceptRollback = true
	v := vaulttest.Open(t, accepting)
	if got := actions(t, v); got[len(got)-1] != "vault.accept-rollback" {
		t.Errorf("audited: %v", got)
	}
	v.Close()
	v = vaulttest.Open(t, cfg)
	if err := v.View(t.Context(), func(tx *vault.Tx) error { return tx.VerifyContent(t.Context()) }); err != nil {
		t.Errorf("once it was accepted: %v", err)
	}
}

// TestUnauditedChange: rows that the digest covers cannot change without an audit row.
func TestUnauditedChange(t *testing.T) {
	v := vaulttest.New(t)
	ctx := t.Context()
	audit := func(tx *vault.Tx) error { return tx.Audit(ctx, vault.Event{Action: vault.Action("x")}) }
	insert := func(tx *vault.Tx) error { return insertNode(ctx, tx, "hive-01") }
	// Every byte of a blob counts, also after a zero byte.
	if err := v.Update(ctx, func(tx *vault.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO ssh_keys (fingerprint, type, public_key, comment, private_key, created) VALUES ('SHA256:x', 'ssh-ed25519', '', '', x'610001', 0)`)
		return errors.Join(err, audit(tx))
	}); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(tx *vault.Tx) error{
		"alone": insert,
		"a sealed key": func(tx *vault.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE ssh_keys SET private_key = x'610002'`)
			return err
		},
		"behind its row": func(tx *vault.Tx) error { return errors.Join(audit(tx), insert(tx)) },
		"signers":        func(tx *vault.Tx) error { _, err := tx.ExecContext(ctx, `DELETE FROM signers`); return err },
		"slots":          func(tx *vault.Tx) error { _, err := tx.ExecContext(ctx, `UPDATE slots SET label = 'x'`); return err },
		"unlock by keyring": func(tx *vault.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE vault_meta SET keyring = 1`)
			return err
		},
	} {
		if err := v.Update(ctx, do); err == nil || !strings.Contains(err.Error(), "no audit row") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.Update(ctx, func(tx *vault.Tx) error { return errors.Join(insert(tx), audit(tx)) }); err != nil {
		t.Error(err)
	}
	// State is not configuration.
	if err := v.Update(ctx, func(tx *vault.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE beehives SET status = 'online', last_connected_unix = 1`)
		return err
	}); err != nil {
		t.Error(err)
	}
	if err := everything(ctx, v); err != nil {
		t.Error(err)
	}
}

// TestDigestedTables: every table is covered, or is listed as not covered.
func TestDigestedTables(t *testing.T) {
	v := vaulttest.New(t)
	covered := vault.DigestedTables()
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		rows, err := tx.QueryContext(t.Context(), `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			switch name {
			case "vault_meta", "audit_log", "backups", "backup_recipients", "backup_copies", "backup_drills", "node_changes": // see digest.ContentTables
			default:
				if !covered[name] {
					t.Errorf("the digest does not cover table %s", name)
				}
			}
		}
		return rows.Err()
	})
	if err != nil {
		t.Error(err)
	}
}

func removeIfThere(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
