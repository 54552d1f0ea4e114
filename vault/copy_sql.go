package vault

import (
	"context"
	"fmt"
	"strings"
)

// What a rotation copies from the old database, which its connection sees as
// "old".

// notCopied are the tables that a transition writes itself.
const notCopied = `'vault_meta', 'slots'`

// sealedColumns are the columns that hold sealed values of table rows, each
// beside the fingerprint to which it is bound. The signing key is in vault_meta.
var sealedColumns = []struct {
	table, column string
	kind          SealedKind
}{
	{"ssh_keys", "private_key", SealedSSHKey},
}

// copyRows copies every row of every table, and seals anew what is sealed.
func copyRows(ctx context.Context, tx *Tx, from sealer) error {
	// The order of the tables then does not matter. It ends with the transaction.
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
	// What is carried on is what was copied, and no other read of it.
	if err := checkCopied(ctx, tx); err != nil {
		return err
	}
	for _, c := range sealedColumns {
		if err := resealColumn(ctx, tx, from, c.table, c.column, c.kind); err != nil {
			return fmt.Errorf("seal %s anew: %w", c.table, err)
		}
	}
	return nil
}

// checkCopied compares the rows that were copied, as they are here, with what the audit
// log, copied as well, tells of them. The error matches [ErrRollback].
func checkCopied(ctx context.Context, tx *Tx) error {
	want, err := tx.auditedDigest(ctx)
	if err != nil {
		return err
	}
	seen, err := tx.computeContent(ctx, "old", oldRowFunction)
	if err != nil {
		return err
	}
	return compareContent(seen, want.content)
}

// copyTable copies a table's rows by its columns' names, and counts them.
func copyTable(ctx context.Context, tx *Tx, table string) error {
	columns, err := selectTexts(ctx, tx, `SELECT name FROM pragma_table_info(?, 'old')`, table)
	if err != nil {
		return err
	}
	for i, c := range columns {
		columns[i] = quoteName(c)
	}
	names := strings.Join(columns, ", ")
	_, err = tx.ExecContext(ctx, fmt.Sprintf(`INSERT INTO main.%[1]s (%[2]s) SELECT %[2]s FROM old.%[1]s`, quoteName(table), names))
	if err != nil {
		return err
	}
	var copied, there int64
	err = tx.QueryRowContext(ctx, fmt.Sprintf(`SELECT (SELECT count(*) FROM main.%[1]s), (SELECT count(*) FROM old.%[1]s)`, quoteName(table))).Scan(&copied, &there)
	if err == nil && copied != there {
		err = fmt.Errorf("%w: %d of %d rows were copied", ErrDamaged, copied, there)
	}
	return err
}

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// resealColumn seals each value anew that was copied.
func resealColumn(ctx context.Context, tx *Tx, from sealer, table, column string, kind SealedKind) error {
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(`SELECT fingerprint, %s FROM main.%s`, column, table))
	if err != nil {
		return err
	}
	defer rows.Close()
	update := fmt.Sprintf(`UPDATE main.%s SET %s = ? WHERE fingerprint = ?`, table, column)
	for rows.Next() {
		var fingerprint string
		var sealed []byte
		if err := rows.Scan(&fingerprint, &sealed); err != nil {
			return err
		}
		if sealed, err = reseal(ctx, tx, from, kind, fingerprint, sealed); err != nil {
			return fmt.Errorf("%s: %w", fingerprint, err)
		}
		if _, err := tx.ExecContext(ctx, update, sealed, fingerprint); err != nil {
			return err
		}
	}
	return rows.Err()
}

// reseal opens a value of the old key and seals it under the transaction's.
func reseal(ctx context.Context, tx *Tx, from sealer, kind SealedKind, fingerprint string, sealed []byte) ([]byte, error) {
	plaintext, err := from.open(kind, fingerprint, sealed)
	if err != nil {
		return nil, err
	}
	defer wipe(plaintext)
	return tx.Seal(ctx, kind, fingerprint, plaintext)
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
