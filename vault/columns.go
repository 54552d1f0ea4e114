package vault

import (
	"fmt"
	"slices"
	"strings"
)

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
