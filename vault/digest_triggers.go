package vault

import (
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// movedFunction is the SQL function that the triggers of the write connection call when a row
// is added (1) or removed (-1). Its arguments are the name of the digest, that count, and the
// text of the row.
const movedFunction = "rbee_moved"

// maintainDigest creates the triggers on a new write connection, if the database has the schema
// for which they are made. From then on moved follows what each write changes. Any other schema
// is migrated first, and the migration computes the digest from all rows.
func maintainDigest(conn *sqlcipher.Conn, schema int64, h *rowHasher, moved *digest) error {
	move := func(set string, count int64, text []byte) int64 {
		if set == "slots" {
			moved.slots.move(count, h.hash(text))
		} else {
			moved.content.move(count, h.hash(text))
		}
		return 0
	}
	if err := conn.Function(movedFunction, move); err != nil {
		return err
	}
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
