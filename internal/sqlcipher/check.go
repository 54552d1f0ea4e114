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
func (s *Snapshot) CheckPages(ctx context.Context) error { return checkPages(ctx, s.tx) }

// Close ends the transaction.
func (s *Snapshot) Close() { s.tx.Rollback() }

// CheckPages is [Snapshot.CheckPages] for a database to which nobody else writes.
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

// checkPragma runs a check that returns rows of text. Any row but `fine` is damage.
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

// CheckForeignKeys returns [ErrDamaged] if a row refers to a row that does not exist.
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
