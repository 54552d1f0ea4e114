package digest

import (
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// movedFunction is the SQL function that the triggers of the write connection call when a row
// is added (1) or removed (-1). Its arguments are the name of the digest, that count, and the
// text of the row.
const movedFunction = "rbee_moved"

// Maintain creates the triggers on a new write connection of a database with this schema. From
// then on moved follows what each write changes.
func Maintain(conn *sqlcipher.Conn, schema int64, h *Hasher, moved *Digest) error {
	move := func(set string, count int64, text []byte) int64 {
		if set == "slots" {
			moved.Slots.Move(count, h.Hash(text))
		} else {
			moved.Content.Move(count, h.Hash(text))
		}
		return 0
	}
	if err := conn.Function(movedFunction, move); err != nil {
		return err
	}
	found, err := conn.Query(columnsQuery)
	if err != nil {
		return err
	}
	tables := Columns{}
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
func (c Columns) triggers(schema int64) string {
	var b strings.Builder
	trigger := func(t, event, body string) {
		fmt.Fprintf(&b, "CREATE TEMP TRIGGER rbee_%s_%s AFTER %s ON main.%s BEGIN SELECT %s; END;\n", t, strings.Fields(event)[0], event, sqlcipher.QuoteName(t), body)
	}
	moved := func(set string, count int, row string) string {
		return fmt.Sprintf("%s('%s', %d, %s)", movedFunction, set, count, row)
	}
	digested := func(set string, t Table) {
		gone, come := moved(set, -1, c.RowText(t, "OLD")), moved(set, 1, c.RowText(t, "NEW"))
		trigger(t.Name, "INSERT", come)
		trigger(t.Name, "DELETE", gone)
		var names []string
		for _, col := range c.of(t) {
			names = append(names, sqlcipher.QuoteName(col.name))
		}
		trigger(t.Name, "UPDATE OF "+strings.Join(names, ", "), gone+", "+come)
	}
	for _, t := range content {
		digested("content", t)
	}
	digested("slots", SlotsTable())
	unlocking := Columns{"vault_meta": {{name: "keyring", notNull: true}, {name: "slots_seq", notNull: true}}}
	schemaText := sqlcipher.QuoteText(string(RowText("", "user_version", schema)))
	text := func(alias string) string {
		return unlocking.RowText(Table{Name: "vault_meta"}, alias) + " || " + schemaText
	}
	trigger("vault_meta", "UPDATE OF keyring, slots_seq", moved("slots", -1, text("OLD"))+", "+moved("slots", 1, text("NEW")))
	return b.String()
}
