package sqlcipher

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/trace"
)

// Batch is a transaction that several functions share. They run one after the other, each alone,
// and one commit stores what all of them did. If a function fails, what the others did stays.
//
// Of a batch that writes, the caller holds the lock of all writers from the first Run until
// Commit has returned. A batch is not safe for concurrent use.
type Batch struct {
	db   *DB
	mode connMode
	conn *sql.Conn // nil: no transaction is open
	tx   driver.Tx
	kept bool  // a function has succeeded
	lost error // why what the functions did is gone; or nil
}

// NewBatch returns a batch of functions that write.
func (db *DB) NewBatch() *Batch { return &Batch{db: db, mode: db.mode} }

const savepoint = "batch"

// Run runs fn in the transaction. After an error, a panic, or if ctx has ended, nothing that fn
// did is left. The error of fn is returned; if fn meets damage, the error matches [ErrDamaged].
// fn must close its rows itself.
func (b *Batch) Run(ctx context.Context, fn func(Tx) error) error {
	defer trace.Step(ctx, "transaction", "writes", b.mode != reading)()
	if b.lost != nil {
		return b.lost
	}
	if err := b.begin(ctx); err != nil {
		return fmt.Errorf("begin transaction: %w", MapError(err))
	}
	kept := false
	defer func() {
		if !kept { // also if fn panics
			b.undo()
		}
	}()
	if err := fn(&txConn{Conn: b.conn}); err != nil {
		return MapError(err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if b.kept {
		if err := b.exec("RELEASE " + savepoint); err != nil {
			return fmt.Errorf("commit: %w", MapError(err))
		}
	}
	b.kept, kept = true, true
	return nil
}

// begin begins the transaction, or sets a savepoint if an earlier function has succeeded. It does
// without [sql.Tx], which starts a goroutine for the transaction and one for each query: they
// cost an open a fifth of its time.
func (b *Batch) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.conn != nil {
		return b.exec("SAVEPOINT " + savepoint)
	}
	pool, err := b.db.pool(b.mode)
	if err != nil {
		return err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	err = conn.Raw(func(c any) (err error) {
		b.tx, err = c.(driver.ConnBeginTx).BeginTx(ctx, driver.TxOptions{})
		return err
	})
	if err != nil {
		conn.Close()
		return err
	}
	b.conn = conn
	return nil
}

// exec executes a statement without arguments, whatever became of the caller's context.
func (b *Batch) exec(statement string) error {
	return b.conn.Raw(func(c any) error { return c.(*statementConn).run(statement) })
}

// undo undoes what the last function did. After some errors, as of a full disk, SQLite has
// rolled back the whole transaction already. Then there is no savepoint any more, and the batch
// is lost.
func (b *Batch) undo() {
	if b.kept {
		err := b.exec("ROLLBACK TO " + savepoint)
		if err == nil {
			err = b.exec("RELEASE " + savepoint)
		}
		if err == nil {
			return
		}
		b.lost = fmt.Errorf("the transaction was rolled back: %w", MapError(err))
	}
	b.tx.Rollback()
	b.close()
}

// close gives the connection back.
func (b *Batch) close() {
	b.conn.Close()
	b.conn, b.tx = nil, nil
}

// Lost reports whether nothing of the batch is left, so that Commit will fail.
func (b *Batch) Lost() bool { return b.lost != nil }

// Commit commits what the functions did that succeeded. On any error but [ErrUnknownOutcome]
// nothing is changed.
func (b *Batch) Commit() error {
	if b.conn == nil {
		return b.lost
	}
	defer b.close()
	switch err := b.tx.Commit(); {
	case err == nil:
		return b.checkLog()
	case b.mode == writing && flushFailed(err): // a database that is being built is discarded
		return fmt.Errorf("commit: %w: %w", ErrUnknownOutcome, err)
	default:
		return fmt.Errorf("commit: %w", MapError(err))
	}
}

// checkLog checks after a commit that the write-ahead log, which it was written to, is still there.
func (b *Batch) checkLog() error {
	if b.mode != writing {
		return nil
	}
	if err := b.db.checkLog(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return nil
}
