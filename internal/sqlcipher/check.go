package sqlcipher

import (
	"context"
	"database/sql"
	"fmt"
)

// Snapshot is a read transaction that pages can be checked in. The caller closes it.
type Snapshot struct{ tx *sql.Tx }

// Snapshot begins one. If the write-ahead log is empty and the caller holds the lock of
// all writers, it reads the database file itself, and no checkpoint of any process
// changes that file before it is closed. The lock is needed for its beginning alone.
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

// CheckPages verifies every page: its HMAC in the database file (a log beside it must be
// empty), and then what the pages say, the constraints and the references. The error
// matches [ErrDamaged].
func (s *Snapshot) CheckPages(ctx context.Context) error { return checkPages(ctx, s.tx) }

// Close ends the transaction.
func (s *Snapshot) Close() { s.tx.Rollback() }

// CheckPages is [Snapshot.CheckPages] for a database that nobody else writes to.
func (db *DB) CheckPages(ctx context.Context) error {
	mode := reading
	if db.mode == building {
		mode = building
	}
	pool, err := db.pool(mode)
	if err != nil {
		return err
	}
	return checkPages(ctx, pool)
}

func checkPages(ctx context.Context, q Tx) error {
	if err := checkPragma(ctx, q, `PRAGMA cipher_integrity_check`, ""); err != nil {
		return err
	}
	if err := checkPragma(ctx, q, `PRAGMA integrity_check`, "ok"); err != nil {
		return err
	}
	return CheckForeignKeys(ctx, q)
}

// checkPragma runs a check that answers with rows of text: none of them but `fine` may
// appear.
func checkPragma(ctx context.Context, q Tx, pragma, fine string) error {
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

// CheckForeignKeys returns [ErrDamaged] where a row refers to none.
func CheckForeignKeys(ctx context.Context, q Tx) error {
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
