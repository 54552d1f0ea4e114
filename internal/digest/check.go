package digest

import (
	"fmt"
	"slices"
)

// Check checks rows that are read to be stored elsewhere, as in a backup. They must be those of
// the newest audit row. Each row is counted by the same statement that reads it, so that no other
// page can be put in place between two reads.
type Check struct {
	want    RowSet
	columns Columns
	hasher  *Hasher
	sums    map[string]RowSet   // by table, of the last read
	earlier map[string][]RowSet // of earlier reads
}

// NewCheck begins a check of the tables of the configuration.
func NewCheck(want RowSet, c Columns, h *Hasher) *Check {
	return &Check{want: want, columns: c, hasher: h, sums: map[string]RowSet{}, earlier: map[string][]RowSet{}}
}

// Table begins a read of all rows of a table. It returns the SQL expression for the text of a
// row; its value goes to Count.
func (c *Check) Table(table, alias string) string {
	if sum, ok := c.sums[table]; ok {
		c.earlier[table] = append(c.earlier[table], sum)
	}
	c.sums[table] = RowSet{}
	for _, t := range content {
		if t.Name == table {
			return c.columns.RowText(t, alias)
		}
	}
	panic("the digest does not cover the table " + table)
}

// Count counts a row that was read.
func (c *Check) Count(table string, text []byte) {
	sum := c.sums[table]
	sum.Move(1, c.hasher.Hash(text))
	c.sums[table] = sum
}

// End compares what was read with what is wanted. Each table must have been read completely. The
// error matches [ErrOld].
func (c *Check) End() error {
	var seen RowSet
	for _, t := range content {
		seen = seen.Plus(c.sums[t.Name])
		for _, sum := range c.earlier[t.Name] {
			if sum != c.sums[t.Name] {
				return fmt.Errorf("%w: two reads of %s differ", ErrOld, t.Name)
			}
		}
	}
	return CompareContent(seen, c.want)
}

// CopyCheck checks that rows, after they were copied to another database, are those of the newest
// audit row of the old one.
type CopyCheck struct {
	Hasher *Hasher // under the key of the old database
	want   RowSet
	seen   RowSet
	tables []string // whose rows are in seen
}

// NewCopyCheck begins a check of the tables of the configuration.
func NewCopyCheck(want RowSet, old *Hasher) *CopyCheck { return &CopyCheck{Hasher: old, want: want} }

// Add counts the rows of a table, under the key of the old database.
func (c *CopyCheck) Add(table string, sum RowSet) {
	c.seen = c.seen.Plus(sum)
	c.tables = append(c.tables, table)
}

// Has reports whether the rows of a table were counted.
func (c *CopyCheck) Has(table string) bool { return slices.Contains(c.tables, table) }

// End compares what was counted with what is wanted. The error matches [ErrOld].
func (c *CopyCheck) End() error { return CompareContent(c.seen, c.want) }
