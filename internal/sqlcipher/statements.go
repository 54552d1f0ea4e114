package sqlcipher

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/trace"
)

// statementConn keeps the prepared statements of a connection. Compiling a statement again for
// each call costs as much as running it, and a registry has only a few dozen constant
// statements.
type statementConn struct {
	rawConn
	idle  map[string]driver.Stmt // by text; without the statements in use
	begin string                 // "BEGIN" or "BEGIN IMMEDIATE"
}

// rawConn is the interface of the driver's connection.
type rawConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
}

// maxStatements is how many statements a connection keeps.
const maxStatements = 64

var (
	_ driver.ConnBeginTx        = (*statementConn)(nil)
	_ driver.ConnPrepareContext = (*statementConn)(nil)
	_ driver.QueryerContext     = (*statementConn)(nil)
	_ driver.ExecerContext      = (*statementConn)(nil)
)

func newStatementConn(raw rawConn, begin string) *statementConn {
	return &statementConn{rawConn: raw, idle: map[string]driver.Stmt{}, begin: begin}
}

// reusable reports whether the query is a single statement that means the same each time. A
// PRAGMA, for example, may act when it is compiled.
func reusable(query string) bool {
	if strings.Contains(query, ";") {
		return false // several statements: only the first would be prepared
	}
	verb := strings.TrimLeft(query, " \t\r\n")
	for _, prefix := range []string{"SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"} {
		if strings.HasPrefix(verb, prefix) {
			return true
		}
	}
	return false
}

// QueryContext implements [driver.QueryerContext]. Reusable statements are run as prepared
// statements.
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
func (c *statementConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.run(c.begin); err != nil {
		return nil, err
	}
	return transaction{c}, nil
}

// run executes a statement without arguments and results.
func (c *statementConn) run(query string) error {
	_, err := c.exec(query, nil)
	return err
}

// exec executes a statement and returns how many rows it changed.
func (c *statementConn) exec(query string, args []driver.NamedValue) (changed int64, err error) {
	stmt, err := c.PrepareContext(context.Background(), query)
	if err != nil {
		return 0, err
	}
	defer stmt.Close()
	if n := stmt.NumInput(); n != len(args) { // the others would stay as they were in the call before
		return 0, fmt.Errorf("a statement has %d arguments, not %d", n, len(args))
	}
	res, err := stmt.(driver.StmtExecContext).ExecContext(context.Background(), args)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// transaction is an open transaction of the connection.
type transaction struct{ conn *statementConn }

// Commit implements [driver.Tx]. After a failed commit, as on a full disk, SQLite's transaction
// is still open. So it is rolled back; otherwise the next transaction of this connection could
// not begin.
func (tx transaction) Commit() error {
	err := tx.conn.run("COMMIT")
	if err != nil {
		tx.Rollback()
	}
	return err
}

// Rollback implements [driver.Tx].
func (tx transaction) Rollback() error { return tx.conn.run("ROLLBACK") }

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

// sqlText is a statement for a log, on one line. Values are not in it: statements are written
// with placeholders.
type sqlText string

// LogValue implements [slog.LogValuer].
func (s sqlText) LogValue() slog.Value {
	return slog.StringValue(strings.Join(strings.Fields(string(s)), " "))
}

// keptStmt returns to its connection when it is closed. It does not pass the context on,
// because the driver would start a goroutine for each row. It is not needed: the statements are
// short, and when the context ends, database/sql stops between two rows.
type keptStmt struct {
	rawStmt
	conn  *statementConn
	query string
}

// QueryContext implements [driver.StmtQueryContext].
func (s *keptStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if !trace.On(ctx) {
		return s.rawStmt.QueryContext(context.Background(), args)
	}
	end := trace.Step(ctx, "query", "sql", sqlText(s.query))
	rows, err := s.rawStmt.QueryContext(context.Background(), args)
	if err != nil {
		end()
		return nil, err
	}
	return &tracedRows{rows, end}, nil
}

// ExecContext implements [driver.StmtExecContext].
func (s *keptStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	defer trace.Step(ctx, "statement", "sql", sqlText(s.query))()
	return s.rawStmt.ExecContext(context.Background(), args)
}

// tracedRows ends a step when it is closed: SQLite works while rows are read.
type tracedRows struct {
	driver.Rows
	end func()
}

// Close implements [driver.Rows].
func (r *tracedRows) Close() error {
	r.end()
	return r.Rows.Close()
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
