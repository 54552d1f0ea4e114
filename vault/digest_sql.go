package vault

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// movedFunction is the SQL function that the triggers of the write connection call when a row
// is added (1) or removed (-1). Its arguments are the name of the digest, that count, and the
// text of the row.
const movedFunction = "rbee_moved"

// columnsQuery lists the columns of all tables. Of each table, the columns declared NOT NULL
// come first; both groups are in the order of their names.
const columnsQuery = `SELECT m.name, c.name, c."notnull", c.type = 'BLOB'
	FROM main.sqlite_master AS m
	JOIN pragma_table_info(m.name, 'main') AS c
	WHERE m.type = 'table'
	ORDER BY m.name, c."notnull" DESC, c.name`

type column struct {
	name    string
	notNull bool
	blob    bool
}

// columns are the columns of each table.
type columns map[string][]column

func (c columns) add(table string, col column) { c[table] = append(c[table], col) }

// of returns the columns of a table that its digest covers.
func (c columns) of(t digestedTable) []column {
	var covered []column
	for _, col := range c[t.name] {
		if !slices.Contains(t.leftOut, col.name) {
			covered = append(covered, col)
		}
	}
	return covered
}

// rowText returns an SQL expression for the text of a row; see [rowText]. alias is the row's
// table alias. It uses printf, because one call of printf takes a third of the time of the
// calls of quote. printf ends a text at a zero byte; the program stores no zero bytes.
func (c columns) rowText(t digestedTable, alias string) string {
	format, args := strings.ReplaceAll(t.name, "%", "%%"), ""
	var nullable strings.Builder
	for _, col := range c.of(t) {
		value := alias + "." + quoteName(col.name)
		arg := value
		if col.blob {
			arg = "hex(" + value + ")"
		}
		named := "|" + strings.ReplaceAll(col.name, "%", "%%") + "=%Q"
		if col.notNull {
			format += named
			args += ", " + arg
		} else {
			fmt.Fprintf(&nullable, ` || CASE WHEN %s IS NULL THEN '' ELSE printf(%s, %s) END`, value, quoteText(named), arg)
		}
	}
	return "printf(" + quoteText(format) + args + ")" + nullable.String()
}

func (tx *Tx) selectColumns(ctx context.Context) (columns, error) {
	rows, err := tx.QueryContext(ctx, columnsQuery)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := columns{}
	for rows.Next() {
		var table string
		var col column
		if err := rows.Scan(&table, &col.name, &col.notNull, &col.blob); err != nil {
			return nil, err
		}
		found.add(table, col)
	}
	return found, rows.Err()
}

// computeDigest computes the digest from all rows. It uses no index: an index may be older than
// its table.
func (tx *Tx) computeDigest(ctx context.Context) (digest, error) {
	c, err := tx.selectColumns(ctx)
	if err != nil {
		return digest{}, err
	}
	h := tx.sealer.rowHasher()
	content, err := tx.computeContent(ctx, c, h)
	if err != nil {
		return digest{}, err
	}
	sums, err := tx.sumRows(ctx, c, slotsTable, h)
	if err != nil {
		return digest{}, err
	}
	slots := sums[0]
	m, err := tx.Meta(ctx)
	if err != nil {
		return digest{}, err
	}
	version, err := tx.schemaVersion(ctx)
	if err != nil {
		return digest{}, err
	}
	slots.move(1, h.hash(m.unlockingText(version)))
	return digest{content, slots}, nil
}

// computeContent computes the digest of the registry and of the signers. If rows were copied,
// it also ends their check; then the error matches [ErrRollback].
func (tx *Tx) computeContent(ctx context.Context, c columns, h *rowHasher) (rowSet, error) {
	var content rowSet
	for _, t := range contentTables {
		if tx.inserted != nil {
			if sum, ok := tx.inserted.sums[t.name]; ok {
				content = content.plus(sum)
				continue
			}
		}
		hashers := []*rowHasher{h}
		if tx.copied != nil && !slices.Contains(tx.copied.tables, t.name) {
			hashers = append(hashers, tx.copied.hasher)
		}
		sums, err := tx.sumRows(ctx, c, t, hashers...)
		if err != nil {
			return rowSet{}, err
		}
		content = content.plus(sums[0])
		if len(sums) > 1 {
			tx.copied.add(t.name, sums[1])
		}
	}
	if tx.copied != nil {
		if err := compareContent(tx.copied.seen, tx.copied.want); err != nil {
			return rowSet{}, err
		}
		tx.copied = nil
	}
	return content, nil
}

// sumRows computes the digest of a table's rows under the key of each hasher.
func (tx *Tx) sumRows(ctx context.Context, c columns, t digestedTable, hashers ...*rowHasher) ([]rowSet, error) {
	sums := make([]rowSet, len(hashers))
	if len(c[t.name]) == 0 {
		return sums, nil // the table is not there before a migration
	}
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(`SELECT %s FROM main.%s AS t NOT INDEXED`, c.rowText(t, "t"), quoteName(t.name)))
	if err != nil {
		return nil, fmt.Errorf("digest table %s: %w", t.name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var text sql.RawBytes
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("digest table %s: %w", t.name, err)
		}
		for i, h := range hashers {
			sums[i].move(1, h.hash(text))
		}
	}
	return sums, rows.Err()
}

// unlockingText is the text that the slots digest covers for vault_meta: what it says about the
// unlock methods, and the schema version. With the version, an older first page cannot run a
// migration again.
func (m Meta) unlockingText(schema int64) []byte {
	keyring := 0
	if m.Keyring {
		keyring = 1
	}
	return rowText("vault_meta", "keyring", keyring, "slots_seq", m.SlotsSeq, "user_version", schema)
}

// rowText is the text of the slot's row. It is the same as the trigger's.
func (s Slot) rowText() []byte {
	return rowText(slotsTable.name,
		"created", s.Created.UnixMilli(),
		"kind", string(s.Kind),
		"label", s.Label,
		"recipient", s.Recipient,
		"wrapped", s.wrapped,
		"id", s.ID,
		"identity", anyText(s.Identity),
		"vouch", anyText(s.vouch),
	)
}

// anyText returns s as a column holds it: "" is NULL.
func anyText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// schemaVersion returns the schema's version. No transaction changes it after it was read.
func (tx *Tx) schemaVersion(ctx context.Context) (int64, error) {
	if tx.schema != 0 {
		return tx.schema, nil
	}
	err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&tx.schema)
	return tx.schema, err
}

// triggers returns the statements with which the write connection maintains the digest. They
// are temporary triggers of that connection, so any SQLCipher shell can still write the file.
// They also fire for a row that a foreign key changes or deletes.
func (c columns) triggers(schema int64) string {
	var b strings.Builder
	trigger := func(t, event, body string) {
		fmt.Fprintf(&b, "CREATE TEMP TRIGGER rbee_%s_%s AFTER %s ON main.%s BEGIN SELECT %s; END;\n", t, strings.Fields(event)[0], event, quoteName(t), body)
	}
	moved := func(set string, count int, row string) string {
		return fmt.Sprintf("%s('%s', %d, %s)", movedFunction, set, count, row)
	}
	digested := func(set string, t digestedTable) {
		gone, come := moved(set, -1, c.rowText(t, "OLD")), moved(set, 1, c.rowText(t, "NEW"))
		trigger(t.name, "INSERT", come)
		trigger(t.name, "DELETE", gone)
		var names []string
		for _, col := range c.of(t) {
			names = append(names, quoteName(col.name))
		}
		trigger(t.name, "UPDATE OF "+strings.Join(names, ", "), gone+", "+come)
	}
	for _, t := range contentTables {
		digested("content", t)
	}
	digested("slots", slotsTable)
	unlocking := columns{"vault_meta": {{name: "keyring", notNull: true}, {name: "slots_seq", notNull: true}}}
	schemaText := quoteText(string(rowText("", "user_version", schema)))
	text := func(alias string) string {
		return unlocking.rowText(digestedTable{name: "vault_meta"}, alias) + " || " + schemaText
	}
	trigger("vault_meta", "UPDATE OF keyring, slots_seq", moved("slots", -1, text("OLD"))+", "+moved("slots", 1, text("NEW")))
	return b.String()
}

// maintainDigest creates the triggers on a new write connection, if the database has the schema
// for which they are made. Any other schema is migrated first, and the migration computes the
// digest from all rows.
func (s *store) maintainDigest(conn *sqlcipher.Conn) error {
	h := s.sealer.rowHasher()
	moved := func(set string, count int64, text []byte) int64 {
		if set == "slots" {
			s.moved.slots.move(count, h.hash(text))
		} else {
			s.moved.content.move(count, h.hash(text))
		}
		return 0
	}
	if err := conn.Function(movedFunction, moved); err != nil {
		return err
	}
	schema := s.cfg.schemaVersion()
	version, err := conn.Query(`PRAGMA user_version`)
	if err != nil || version[0][0] != schema {
		return err
	}
	found, err := conn.Query(columnsQuery)
	if err != nil {
		return err
	}
	tables := columns{}
	for _, row := range found {
		table, _ := row[0].(string)
		name, _ := row[1].(string)
		tables.add(table, column{name: name, notNull: row[2] == int64(1), blob: row[3] == int64(1)})
	}
	return conn.Exec(tables.triggers(schema))
}
