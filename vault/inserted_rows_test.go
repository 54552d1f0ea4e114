package vault_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

var (
	beehivesColumns = []string{
		"node_name", "ssh_host", "ssh_port", "ssh_user", "ssh_key_path", "git_repo_url",
		"git_branch", "install_path", "last_connected_unix", "status", "backends", "devices",
	}
	hostKeyColumns = []string{"node_name", "type", "public_key", "first_seen", "last_seen"}
)

// insertedFleet inserts rows of two tables, with all that a column may hold.
func insertedFleet(ctx context.Context, tx *vault.Tx) error {
	_, err := tx.InsertRows(ctx, "beehives", beehivesColumns, "", []any{
		"a", "10.0.0.1", int64(22), "it''s 'quoted' %d", nil, "", "|x='y'", `\"`, int64(1), "online", `["cpu"]`, nil,
		"b", "é\u2028", int64(65535), "u", "~/.ssh/id", "r", "b", "i", nil, "unknown", nil, `{"cpu":1}`,
	})
	if err == nil {
		_, err = tx.InsertRows(ctx, "host_keys", hostKeyColumns, "", []any{"a", "t", "k", int64(-1), int64(0)})
	}
	return err
}

// TestInsertedRows: the digest of a restored vault is that of the rows that it has. A restore
// that stores other rows than those that were inserted ends with an error.
func TestInsertedRows(t *testing.T) {
	for name, c := range map[string]struct {
		then string
		want error
	}{
		"as inserted":     {then: `SELECT 1`},
		"state":           {then: `UPDATE beehives SET status = 'offline'`},
		"another table":   {then: `INSERT INTO node_labels VALUES ('a', 'k', 'v')`},
		"changed":         {then: `UPDATE beehives SET ssh_host = 'other' WHERE node_name = 'a'`, want: vault.ErrRollback},
		"removed":         {then: `DELETE FROM host_keys`, want: vault.ErrRollback},
		"added elsewhere": {then: `INSERT INTO host_keys VALUES ('b', 't', 'k', 0, 0)`, want: vault.ErrRollback},
	} {
		t.Run(name, func(t *testing.T) {
			identity := newIdentity(t)
			cfg := vault.Config{
				Path:          vaulttest.Dir(t) + "/beehives.db",
				Identities:    []age.Identity{identity},
				ConfirmSigner: vaulttest.AcceptSigner,
			}
			backup := backupOf(identity.Recipient().String())
			_, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
				if err := insertedFleet(ctx, tx); err != nil {
					return vault.Backup{}, err
				}
				if _, err := tx.ExecContext(ctx, c.then); err != nil {
					return vault.Backup{}, err
				}
				return backup(ctx, tx)
			}})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.want != nil {
				if exists(cfg.Path) {
					t.Error("the vault is in place")
				}
				return
			}
			if err := everything(t.Context(), vaulttest.Open(t, cfg)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInsertedRowsColumns: each column that the digest covers has a value.
func TestInsertedRowsColumns(t *testing.T) {
	cfg := vault.Config{Path: vaulttest.Dir(t) + "/beehives.db"}
	_, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
		_, err := tx.InsertRows(ctx, "node_details", []string{"node_name"}, "", []any{"a"})
		return vault.Backup{}, err
	}})
	if err == nil || !strings.Contains(err.Error(), "there is no value for note") {
		t.Errorf("%v", err)
	}
}
