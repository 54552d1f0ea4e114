package vault

import (
	"context"
	"database/sql"
	"fmt"
)

// checkPages verifies every page: its HMAC in the main file (a log beside it
// must have been folded in), and then what the pages say. The error matches
// [ErrDamaged].
func checkPages(ctx context.Context, q querier) error {
	if err := checkPragma(ctx, q, `PRAGMA cipher_integrity_check`, ""); err != nil {
		return err
	}
	if err := checkPragma(ctx, q, `PRAGMA integrity_check`, "ok"); err != nil {
		return err
	}
	return checkForeignKeys(ctx, q)
}

// checkPragma runs a check that answers with rows of text: none of them but
// `fine` may appear.
func checkPragma(ctx context.Context, q querier, pragma, fine string) error {
	rows, err := q.QueryContext(ctx, pragma)
	if err != nil {
		return mapDriverError(err)
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
	return mapDriverError(rows.Err())
}

func checkForeignKeys(ctx context.Context, q querier) error {
	rows, err := q.QueryContext(ctx, `PRAGMA foreign_key_check`)
	if err != nil {
		return mapDriverError(err)
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
	return mapDriverError(rows.Err())
}

// CheckPages folds the write-ahead log into the database and verifies every
// page, the constraints and the references. Others write meanwhile. The error
// matches [ErrDamaged], or [ErrLocked] when another connection kept the log from
// being folded in.
func (v *Vault) CheckPages(ctx context.Context) error {
	if err := v.enter(ctx); err != nil {
		return err
	}
	defer v.leave()
	db, err := v.pool(reading)
	if err != nil {
		return err
	}
	if v.readOnly {
		return checkPages(ctx, db)
	}
	// A reader that begins while the log is empty reads the database file itself,
	// and no checkpoint of any process changes that file before the reader ends. So
	// the write lock is needed for its beginning alone.
	var snapshot *sql.Tx
	err = v.locked(ctx, func() error {
		writer, err := v.pool(v.mode)
		if err != nil {
			return err
		}
		done, err := checkpoint(ctx, writer)
		if err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		if !done {
			return fmt.Errorf("%w: a reader kept the write-ahead log from being folded in", ErrLocked)
		}
		if snapshot, err = db.BeginTx(ctx, nil); err != nil {
			return err
		}
		var version int64 // the first read takes the snapshot
		return snapshot.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version)
	})
	if snapshot != nil {
		defer snapshot.Rollback()
	}
	if err != nil {
		return mapDriverError(err)
	}
	return checkPages(ctx, snapshot)
}
