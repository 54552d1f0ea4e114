package digest

import (
	"fmt"
	"slices"
)

// Inserted computes the digests of tables of a new database from the rows that are inserted, so
// that these rows are not all read again for the first audit row. Other statements must not
// change these tables. The rows that the database has afterwards are to be compared with that
// audit row.
type Inserted struct {
	columns Columns
	hasher  *Hasher
	sums    map[string]RowSet // by table
	text    []byte            // of a row; the memory is used again
}

// NewInserted begins to compute the digests of the rows that are inserted.
func NewInserted(c Columns, h *Hasher) *Inserted {
	return &Inserted{columns: c, hasher: h, sums: map[string]RowSet{}}
}

// Add adds rows to the digest of their table, if the digest covers it. Row by row, args are the
// values of the columns.
func (r *Inserted) Add(table string, columns []string, args []any) error {
	i := slices.IndexFunc(content, func(t Table) bool { return t.Name == table })
	if i < 0 || len(args) == 0 {
		return nil
	}
	covered := r.columns.of(content[i])
	at := make([]int, len(covered)) // where each column is in a row of args
	for i, col := range covered {
		if at[i] = slices.Index(columns, col.name); at[i] < 0 {
			return fmt.Errorf("insert into %s: there is no value for %s", table, col.name)
		}
	}
	sum := r.sums[table]
	for row := range slices.Chunk(args, len(columns)) {
		r.text = append(r.text[:0], table...)
		for i, col := range covered {
			r.text = appendColumn(r.text, col.name, row[at[i]])
		}
		sum.Move(1, r.hasher.Hash(r.text))
	}
	r.sums[table] = sum
	return nil
}

// Sum returns the digest of a table that rows were inserted into. A nil Inserted has none.
func (r *Inserted) Sum(table string) (sum RowSet, ok bool) {
	if r == nil {
		return RowSet{}, false
	}
	sum, ok = r.sums[table]
	return sum, ok
}
