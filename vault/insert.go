package vault

import (
	"context"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// insertBatch is how many rows one statement inserts: so many, and then one by one.
const insertBatch = 50

// InsertRows inserts rows into a table, many with one statement. args are the values of the
// columns, row after row. It returns how many rows were inserted: with a conflict clause, such
// as ON CONFLICT DO NOTHING, that may be fewer. Table, columns and conflict are SQL.
func (tx *Tx) InsertRows(ctx context.Context, table string, columns []string, conflict string, args []any) (inserted int64, err error) {
	if tx.inserted != nil {
		if err := tx.inserted.Add(table, columns, args); err != nil {
			return 0, err
		}
	}
	row := "(?" + strings.Repeat(", ?", len(columns)-1) + ")"
	insert := fmt.Sprintf("INSERT INTO %s (%s) VALUES ", table, strings.Join(columns, ", "))
	one := insert + row + " " + conflict
	many := ""
	for len(args) > 0 {
		query, n := one, len(columns)
		if len(args) >= insertBatch*len(columns) {
			if many == "" {
				many = insert + row + strings.Repeat(", "+row, insertBatch-1) + " " + conflict
			}
			query, n = many, insertBatch*len(columns)
		}
		added, err := sqlcipher.ExecValues(ctx, tx.Tx, query, args[:n])
		if err != nil {
			return inserted, err
		}
		inserted += added
		args = args[n:]
	}
	return inserted, nil
}
