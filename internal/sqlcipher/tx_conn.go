package sqlcipher

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
)

// txConn is the connection of a transaction.
type txConn struct {
	*sql.Conn
	args []driver.NamedValue // of the last ExecValues; the memory is used again
}

var _ Tx = (*txConn)(nil)

// ExecValues executes a statement with very many arguments and returns how many rows it changed.
// Each argument must be a [driver.Value] already: in a transaction of a [DB] they are not
// converted, and other types are an error.
func ExecValues(ctx context.Context, tx Tx, query string, values []any) (changed int64, err error) {
	if c, ok := tx.(*txConn); ok {
		return c.execValues(ctx, query, values)
	}
	res, err := tx.ExecContext(ctx, query, values...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// execValues does without what [sql.Conn] does for each argument, and without its memory for all
// of them at each call.
func (c *txConn) execValues(ctx context.Context, query string, values []any) (changed int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c.args = c.args[:0]
	defer func() { clear(c.args) }()
	for i, v := range values {
		if !driver.IsValue(v) { // the driver would leave the argument as it was in the call before
			return 0, fmt.Errorf("argument %d has the type %T", i+1, v)
		}
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	err = c.Raw(func(conn any) (err error) {
		changed, err = conn.(*statementConn).exec(query, c.args)
		return err
	})
	return changed, err
}
