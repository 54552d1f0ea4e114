package vault

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// What a rotation copies from the old database. Its connection sees that database as "old".

// notCopied are the tables that a transition writes itself.
// Changes of nodes are for handles that are open, and no handle has the new database open.
const notCopied = `'vault_meta', 'slots', 'node_changes'`

// sealedColumn is a column with sealed values. Each is bound to the row's name.
type sealedColumn struct {
	table, name, column string
	kind                SealedKind
}

// sealedColumns are the columns with sealed values, but for the signing key in vault_meta.
var sealedColumns = []sealedColumn{
	{"ssh_keys", "fingerprint", "private_key", SealedSSHKey},
	{"backup_targets", "name", "secret", SealedTarget},
}

// copyRows copies every row of every table, and seals the sealed values under the new key.
func copyRows(ctx context.Context, tx *Tx, from sealer) error {
	// With this setting the order of the tables does not matter. It ends with the transaction.
	if _, err := tx.ExecContext(ctx, `PRAGMA defer_foreign_keys = ON`); err != nil {
		return err
	}
	tables, err := selectTexts(ctx, tx, `SELECT name FROM old.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT IN (`+notCopied+`) ORDER BY name`)
	if err != nil {
		return err
	}
	for _, table := range tables {
		if err := copyTable(ctx, tx, table); err != nil {
			return fmt.Errorf("copy table %s: %w", table, err)
		}
	}
	if err := tx.checkCopied(ctx, from.rowHasher()); err != nil {
		return err
	}
	for _, c := range sealedColumns {
		if err := resealColumn(ctx, tx, from, c); err != nil {
			return fmt.Errorf("seal %s again: %w", c.table, err)
		}
	}
	return nil
}

// withoutTriggers runs fill while the schema has no triggers: they note changes, and there is
// nobody yet whom these would tell something. (Those of the content digest are the
// connection's own, and stay.)
func (tx *Tx) withoutTriggers(ctx context.Context, fill func() error) error {
	const triggers = ` FROM main.sqlite_master WHERE type = 'trigger' ORDER BY rowid`
	names, err := selectTexts(ctx, tx, `SELECT name`+triggers)
	if err != nil {
		return err
	}
	statements, err := selectTexts(ctx, tx, `SELECT sql`+triggers)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := tx.ExecContext(ctx, `DROP TRIGGER main.`+sqlcipher.QuoteName(name)); err != nil {
			return err
		}
	}
	if err := fill(); err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// checkCopied begins the check. It reads the tables that the transition changes, before they
// change. The other tables are read only once, under both keys, when the last audit row is
// written: see [Tx.computeContent].
func (tx *Tx) checkCopied(ctx context.Context, old *digest.Hasher) error {
	_, want, err := tx.auditedDigest(ctx)
	if err != nil {
		return err
	}
	c, err := digest.SelectColumns(ctx, tx)
	if err != nil {
		return err
	}
	tx.copied = digest.NewCopyCheck(want.Content, old)
	changed := []string{"signers"}
	for _, s := range sealedColumns {
		changed = append(changed, s.table)
	}
	for _, t := range digest.ContentTables() {
		if !slices.Contains(changed, t.Name) {
			continue
		}
		sums, err := c.SumRows(ctx, tx, t, old)
		if err != nil {
			return err
		}
		tx.copied.Add(t.Name, sums[0])
	}
	return nil
}

// copyTable copies a table's rows by column name, and checks that none is missing.
func copyTable(ctx context.Context, tx *Tx, table string) error {
	columns, err := selectTexts(ctx, tx, `SELECT name FROM pragma_table_info(?, 'old')`, table)
	if err != nil {
		return err
	}
	for i, c := range columns {
		columns[i] = sqlcipher.QuoteName(c)
	}
	names := strings.Join(columns, ", ")
	_, err = tx.ExecContext(ctx, fmt.Sprintf(`INSERT INTO main.%[1]s (%[2]s) SELECT %[2]s FROM old.%[1]s`, sqlcipher.QuoteName(table), names))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(digest.ContentTables(), func(t digest.Table) bool { return t.Name == table }) {
		return nil // the digest also has their count
	}
	var copied, there int64
	err = tx.QueryRowContext(ctx, fmt.Sprintf(`SELECT (SELECT count(*) FROM main.%[1]s), (SELECT count(*) FROM old.%[1]s)`, sqlcipher.QuoteName(table))).Scan(&copied, &there)
	if err == nil && copied != there {
		err = fmt.Errorf("%w: %d of %d rows were copied", ErrDamaged, copied, there)
	}
	return err
}

// resealColumn seals each copied value under the new key.
func resealColumn(ctx context.Context, tx *Tx, from sealer, c sealedColumn) error {
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(`SELECT %[1]s, %[2]s FROM main.%[3]s WHERE %[2]s IS NOT NULL`, c.name, c.column, c.table))
	if err != nil {
		return err
	}
	defer rows.Close()
	update := fmt.Sprintf(`UPDATE main.%s SET %s = ? WHERE %s = ?`, c.table, c.column, c.name)
	for rows.Next() {
		var name string
		var sealed []byte
		if err := rows.Scan(&name, &sealed); err != nil {
			return err
		}
		if sealed, err = reseal(ctx, tx, from, c.kind, name, sealed); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := tx.ExecContext(ctx, update, sealed, name); err != nil {
			return err
		}
	}
	return rows.Err()
}

// reseal opens a value that was sealed under the old key and seals it under the transaction's
// key.
func reseal(ctx context.Context, tx *Tx, from sealer, kind SealedKind, name string, sealed []byte) ([]byte, error) {
	plaintext, err := from.open(kind, name, sealed)
	if err != nil {
		return nil, err
	}
	defer wipe(plaintext)
	return tx.Seal(ctx, kind, name, plaintext)
}

func selectTexts(ctx context.Context, tx *Tx, query string, args ...any) ([]string, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var texts []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, rows.Err()
}
