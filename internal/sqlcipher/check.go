package sqlcipher

import (
	"context"
	"database/sql"
	"fmt"
)

// Snapshot is a read transaction in which pages can be checked. The caller closes it.
type Snapshot struct{ tx *sql.Tx }

// Snapshot begins a snapshot. If the write-ahead log is empty and the caller holds the lock of
// all writers, the snapshot reads the database file itself, and no process's checkpoint changes
// that file until the snapshot is closed. The lock is needed only while the snapshot begins.
func (db *DB) Snapshot(ctx context.Context) (*Snapshot, error) {
	pool, err := db.pool(reading)
	if err != nil {
		return nil, err
	}
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return nil, MapError(err)
	}
	var version int64 // the first read takes the snapshot
	if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		tx.Rollback()
		return nil, MapError(err)
	}
	return &Snapshot{tx}, nil
}

// CheckPages verifies every page: first its HMAC in the database file, for which a write-ahead
// log must be empty; then its content, the constraints and the references. The error matches
// [ErrDamaged].
func (s *Snapshot) CheckPages(ctx context.Context) error {
	if err := checkHMACs(ctx, s.tx); err != nil {
		return err
	}
	return checkContent(ctx, s.tx)
}

// Close ends the transaction.
func (s *Snapshot) Close() { s.tx.Rollback() }

// CheckPages is [Snapshot.CheckPages] for a database to which nobody else writes. It uses two
// connections: the HMACs are verified while the content is read.
func (db *DB) CheckPages(ctx context.Context) error {
	readers, err := db.pool(reading)
	if err != nil {
		return err
	}
	content := readers
	if db.mode == building { // that connection has the memory for pages already
		if content, err = db.pool(building); err != nil {
			return err
		}
	}
	hmacs := make(chan error, 1)
	go func() { hmacs <- checkHMACs(ctx, readers) }()
	err = checkContent(ctx, content)
	if e := <-hmacs; e != nil { // it names the page
		return e
	}
	return err
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// checkHMACs verifies the HMAC of every page of the database file.
func checkHMACs(ctx context.Context, q querier) error {
	return checkPragma(ctx, q, `PRAGMA cipher_integrity_check`, "")
}

// checkContent verifies the pages as SQLite reads them, the constraints and the references.
func checkContent(ctx context.Context, q querier) error {
	if err := checkPragma(ctx, q, `PRAGMA integrity_check`, "ok"); err != nil {
		return err
	}
	return CheckForeignKeys(ctx, q)
}

// checkPragma runs a check that returns rows of text. Any row but `fine` is damage.
func checkPragma(ctx context.Context, q querier, pragma, fine string) error {
	rows, err := q.QueryContext(ctx, pragma)
	if err != nil {
		return MapError(err)
	}
	defer rows.Close()
	for rows.Next() {
		var finding string
		if err := rows.Scan(&finding); err != nil {
			return err
		}
		if finding != fine {
			return fmt.Errorf("%w: %s", ErrDamaged, finding)
		}
	}
	return MapError(rows.Err())
}

// CheckForeignKeys returns [ErrDamaged] if a row refers to a row that does not exist.
func CheckForeignKeys(ctx context.Context, q querier) error {
	rows, err := q.QueryContext(ctx, `PRAGMA foreign_key_check`)
	if err != nil {
		return MapError(err)
	}
	defer rows.Close()
	if rows.Next() { // the first is enough
		var table, parent string
		var rowID, constraint sql.NullInt64
		if err := rows.Scan(&table, &rowID, &parent, &constraint); err != nil {
			return err
		}
		return fmt.Errorf("%w: row %d of %s refers to nothing in %s", ErrDamaged, rowID.Int64, table, parent)
	}
	return MapError(rows.Err())
}
