package vault

import "fmt"

// contentCheck checks rows that are read in a transaction to be stored elsewhere, as in a
// backup. They must be those of the newest audit row. Each row is counted by the same statement
// that reads it, so that no other page can be put in place between two reads.
type contentCheck struct {
	want    rowSet
	columns columns
	hasher  *rowHasher
	sums    map[string]rowSet   // by table, of the last read
	earlier map[string][]rowSet // of earlier reads
}

func newContentCheck(want rowSet, c columns, h *rowHasher) *contentCheck {
	return &contentCheck{want: want, columns: c, hasher: h, sums: map[string]rowSet{}, earlier: map[string][]rowSet{}}
}

// beginTable begins a read of all rows of a table. It returns the SQL expression for the text of
// a row.
func (c *contentCheck) beginTable(table, alias string) string {
	if sum, ok := c.sums[table]; ok {
		c.earlier[table] = append(c.earlier[table], sum)
	}
	c.sums[table] = rowSet{}
	for _, t := range contentTables {
		if t.name == table {
			return c.columns.rowText(t, alias)
		}
	}
	panic("the digest does not cover the table " + table)
}

// count counts a row that was read.
func (c *contentCheck) count(table string, text []byte) {
	sum := c.sums[table]
	sum.move(1, c.hasher.hash(text))
	c.sums[table] = sum
}

// end compares what was read with what is wanted. The error matches [ErrRollback].
func (c *contentCheck) end() error {
	var seen rowSet
	for _, t := range contentTables {
		seen = seen.plus(c.sums[t.name])
		for _, sum := range c.earlier[t.name] {
			if sum != c.sums[t.name] {
				return fmt.Errorf("%w: two reads of %s differ", ErrRollback, t.name)
			}
		}
	}
	return compareContent(seen, c.want)
}

// copiedCheck checks that the rows here, after they were copied, are those of the newest audit
// row, which was copied too.
type copiedCheck struct {
	hasher *rowHasher // under the key of the old database
	want   rowSet
	seen   rowSet
	tables []string // whose rows are in seen
}

func (c *copiedCheck) add(table string, sum rowSet) {
	c.seen = c.seen.plus(sum)
	c.tables = append(c.tables, table)
}
