package vault

import (
	"context"
	"fmt"
	"slices"
)

// insertedRows computes the digests of tables of a new database from the rows that are given to
// [Tx.InsertRows], so that these rows are not all read again for the first audit row. Other
// statements must not change these tables. The rows that the database has afterwards are
// compared with that audit row, while the pages are checked: see [store.checkBuilt].
type insertedRows struct {
	columns columns
	hasher  *rowHasher
	sums    map[string]rowSet // by table
	text    []byte            // of a row; the memory is used again
}

// sumInserted begins to compute the digests of the rows that are inserted.
func (tx *Tx) sumInserted(ctx context.Context) error {
	c, err := tx.selectColumns(ctx)
	if err != nil {
		return err
	}
	tx.inserted = &insertedRows{columns: c, hasher: tx.sealer.rowHasher(), sums: map[string]rowSet{}}
	return nil
}

// add adds rows to the digest of their table, if the digest covers it.
func (r *insertedRows) add(table string, names []string, args []any) error {
	i := slices.IndexFunc(contentTables, func(t digestedTable) bool { return t.name == table })
	if i < 0 || len(args) == 0 {
		return nil
	}
	covered := r.columns.of(contentTables[i])
	at := make([]int, len(covered)) // where each column is in a row of args
	for i, col := range covered {
		if at[i] = slices.Index(names, col.name); at[i] < 0 {
			return fmt.Errorf("insert into %s: there is no value for %s", table, col.name)
		}
	}
	sum := r.sums[table]
	for row := range slices.Chunk(args, len(names)) {
		r.text = append(r.text[:0], table...)
		for i, col := range covered {
			r.text = appendColumn(r.text, col.name, row[at[i]])
		}
		sum.move(1, r.hasher.hash(r.text))
	}
	r.sums[table] = sum
	return nil
}
