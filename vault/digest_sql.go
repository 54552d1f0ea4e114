package vault

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// The functions that our connections have besides SQLite's: the HMAC of a row, under
// the digest key of the database and of the one that it is copied from; and, on the
// write connection, what its triggers call when a row has come or gone.
const (
	rowFunction    = "rbee_row"
	oldRowFunction = "rbee_old_row"
	movedFunction  = "rbee_moved"
)

// columnsQuery lists the columns of the tables of a schema ("main" or "old"), each
// table's in the order of their names.
func columnsQuery(schema string) string {
	return fmt.Sprintf(`SELECT m.name, c.name
		FROM %[1]s.sqlite_master AS m
		JOIN pragma_table_info(m.name, '%[1]s') AS c
		WHERE m.type = 'table'
		ORDER BY m.name, c.name`, schema)
}

// columns are the columns of tables.
type columns map[string][]string

// of returns the columns of a table that its digest covers.
func (c columns) of(t digestedTable) []string {
	var covered []string
	for _, name := range c[t.name] {
		if !slices.Contains(t.leftOut, name) {
			covered = append(covered, name)
		}
	}
	return covered
}

// rowOf is an SQL expression that calls a function of rows for the row that is known
// as alias.
func (c columns) rowOf(function string, t digestedTable, alias string) string {
	args := []string{"'" + t.name + "'"}
	for _, name := range c.of(t) {
		args = append(args, "'"+name+"'", alias+"."+quoteName(name))
	}
	return function + "(" + strings.Join(args, ", ") + ")"
}

func (tx *Tx) selectColumns(ctx context.Context, schema string) (columns, error) {
	rows, err := tx.QueryContext(ctx, columnsQuery(schema))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := columns{}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			return nil, err
		}
		found[table] = append(found[table], column)
	}
	return found, rows.Err()
}

// computeDigest reads the rows as they stand. An index may be older than its table,
// so none is used.
func (tx *Tx) computeDigest(ctx context.Context) (digest, error) {
	d, err := tx.computeContent(ctx, "main", rowFunction)
	if err != nil {
		return digest{}, err
	}
	c, err := tx.selectColumns(ctx, "main")
	if err != nil {
		return digest{}, err
	}
	slots, err := tx.sumRows(ctx, c, rowFunction, slotsTable)
	if err != nil {
		return digest{}, err
	}
	m, err := tx.Meta(ctx)
	if err != nil {
		return digest{}, err
	}
	version, err := tx.schemaVersion(ctx)
	if err != nil {
		return digest{}, err
	}
	slots.move(1, hashUnlocking(tx.sealer.digestKey, m, version))
	return digest{content: d, slots: slots}, nil
}

// computeContent digests the rows of the database. Their columns are those of schema,
// and function is the one of its key: what was copied from "old" is compared as it was
// there.
func (tx *Tx) computeContent(ctx context.Context, schema, function string) (rowSet, error) {
	c, err := tx.selectColumns(ctx, schema)
	if err != nil {
		return rowSet{}, err
	}
	var sum rowSet
	for _, t := range contentTables {
		rows, err := tx.sumRows(ctx, c, function, t)
		if err != nil {
			return rowSet{}, err
		}
		sum = sum.plus(rows)
	}
	return sum, nil
}

func (tx *Tx) sumRows(ctx context.Context, c columns, function string, t digestedTable) (rowSet, error) {
	var sum rowSet
	if len(c[t.name]) == 0 {
		return sum, nil // an older schema, before a migration
	}
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(`SELECT %s FROM main.%s AS t NOT INDEXED`, c.rowOf(function, t, "t"), quoteName(t.name)))
	if err != nil {
		return sum, fmt.Errorf("digest table %s: %w", t.name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var row []byte
		if err := rows.Scan(&row); err != nil {
			return sum, fmt.Errorf("digest table %s: %w", t.name, err)
		}
		sum.move(1, row)
	}
	return sum, mapDriverError(rows.Err())
}

// hashUnlocking is the row that stands for what vault_meta says of the unlock methods,
// and for the schema: an older first page must not run a migration again.
func hashUnlocking(key []byte, m Meta, schema int64) []byte {
	keyring := int64(0)
	if m.Keyring {
		keyring = 1
	}
	return hashRow(key, "vault_meta", "keyring", keyring, "slots_seq", m.SlotsSeq, "user_version", schema)
}

// hash is the row of the slot, as the trigger has it.
func (s Slot) hash(key []byte) []byte {
	return hashRow(key, slotsTable.name,
		"created", s.Created.UnixMilli(),
		"id", s.ID,
		"identity", anyText(s.Identity),
		"kind", string(s.Kind),
		"label", s.Label,
		"recipient", s.Recipient,
		"vouch", anyText(s.vouch),
		"wrapped", s.wrapped,
	)
}

// anyText is a text as a row has it: "" stands for NULL.
func anyText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (tx *Tx) schemaVersion(ctx context.Context) (int64, error) {
	var version int64
	err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version)
	return version, err
}

// triggers are the statements that have the write connection maintain the digest.
// They are the connection's own: the file stays writable by any SQLCipher shell. A row
// that a foreign key changes or deletes fires them too.
func (c columns) triggers(schema int64) string {
	var b strings.Builder
	trigger := func(t, event, body string) {
		fmt.Fprintf(&b, "CREATE TEMP TRIGGER rbee_%s_%s AFTER %s ON main.%s BEGIN SELECT %s; END;\n", t, strings.Fields(event)[0], event, quoteName(t), body)
	}
	moved := func(set string, count int, row string) string {
		return fmt.Sprintf("%s('%s', %d, %s)", movedFunction, set, count, row)
	}
	digested := func(set string, t digestedTable) {
		gone, come := moved(set, -1, c.rowOf(rowFunction, t, "OLD")), moved(set, 1, c.rowOf(rowFunction, t, "NEW"))
		trigger(t.name, "INSERT", come)
		trigger(t.name, "DELETE", gone)
		var names []string
		for _, name := range c.of(t) {
			names = append(names, quoteName(name))
		}
		trigger(t.name, "UPDATE OF "+strings.Join(names, ", "), gone+", "+come)
	}
	for _, t := range contentTables {
		digested("content", t)
	}
	digested("slots", slotsTable)
	unlocking := func(alias string) string {
		return fmt.Sprintf("%[1]s('vault_meta', 'keyring', %[2]s.keyring, 'slots_seq', %[2]s.slots_seq, 'user_version', %[3]d)", rowFunction, alias, schema)
	}
	trigger("vault_meta", "UPDATE OF keyring, slots_seq", moved("slots", -1, unlocking("OLD"))+", "+moved("slots", 1, unlocking("NEW")))
	return b.String()
}
