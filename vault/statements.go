package vault

import (
	"context"
	"database/sql/driver"
	"strings"
)

// statementConn keeps the statements of a connection prepared. Compiling one
// again for each call costs as much as running it; and a registry has a few
// dozen constant texts.
type statementConn struct {
	rawConn
	idle map[string]driver.Stmt // by text; a statement in use is not in it
}

// rawConn is what the driver's connection can do.
type rawConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
}

// maxStatements bounds what a connection keeps.
const maxStatements = 64

var (
	_ driver.ConnBeginTx        = (*statementConn)(nil)
	_ driver.ConnPrepareContext = (*statementConn)(nil)
	_ driver.QueryerContext     = (*statementConn)(nil)
	_ driver.ExecerContext      = (*statementConn)(nil)
)

func newStatementConn(raw rawConn) *statementConn {
	return &statementConn{rawConn: raw, idle: map[string]driver.Stmt{}}
}

// reusable tells statements that mean the same each time from those, such as
// PRAGMA, that may act when they are compiled.
func reusable(query string) bool {
	verb := strings.TrimLeft(query, " \t\r\n")
	for _, prefix := range []string{"SELECT", "INSERT", "UPDATE", "DELETE"} {
		if strings.HasPrefix(verb, prefix) {
			return true
		}
	}
	return false
}

// QueryContext implements [driver.QueryerContext]: what is reusable goes the way
// of prepared statements.
func (c *statementConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if reusable(query) {
		return nil, driver.ErrSkip
	}
	return c.rawConn.QueryContext(ctx, query, args)
}

// ExecContext implements [driver.ExecerContext].
func (c *statementConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if reusable(query) {
		return nil, driver.ErrSkip
	}
	return c.rawConn.ExecContext(ctx, query, args)
}

// PrepareContext implements [driver.ConnPrepareContext].
func (c *statementConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	stmt, ok := c.idle[query]
	if ok {
		delete(c.idle, query)
	} else {
		var err error
		if stmt, err = c.rawConn.PrepareContext(ctx, query); err != nil {
			return nil, err
		}
	}
	return &keptStmt{rawStmt: stmt.(rawStmt), conn: c, query: query}, nil
}

// BeginTx implements [driver.ConnBeginTx].
func (c *statementConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.rawConn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return transaction{tx}, nil
}

// transaction is over after a commit that failed: the driver leaves it open when
// the disk is full, and the next one on this connection could not begin.
type transaction struct{ driver.Tx }

// Commit implements [driver.Tx].
func (tx transaction) Commit() error {
	err := tx.Tx.Commit()
	if err != nil {
		tx.Tx.Rollback()
	}
	return err
}

// Close implements [driver.Conn].
func (c *statementConn) Close() error {
	for _, stmt := range c.idle {
		stmt.Close()
	}
	c.idle = nil
	return c.rawConn.Close()
}

type rawStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// keptStmt goes back to its connection when it is closed.
type keptStmt struct {
	rawStmt
	conn  *statementConn
	query string
}

// Close implements [driver.Stmt].
func (s *keptStmt) Close() error {
	idle := s.conn.idle
	if _, taken := idle[s.query]; idle == nil || taken || len(idle) >= maxStatements || !reusable(s.query) {
		return s.rawStmt.Close()
	}
	idle[s.query] = s.rawStmt
	return nil
}
