package sqlcipher

import (
	"context"
	"fmt"
	"os"
)

// Checkpoint checkpoints the write-ahead log and empties it, without waiting for readers. It
// reports whether the log is empty. The caller holds the lock of all writers.
func (db *DB) Checkpoint(ctx context.Context) (emptied bool, err error) {
	pool, err := db.pool(db.mode)
	if err != nil {
		return false, err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, `PRAGMA busy_timeout = 0`); err != nil {
		return false, err
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), `PRAGMA busy_timeout = 5000`)
	var busy, logged, copied int
	if err := conn.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &logged, &copied); err != nil {
		return false, MapError(err)
	}
	return busy == 0, nil
}

// CheckpointIfLarge is Checkpoint if the log is large, and reports whether it was. A reader in
// a transaction prevents that the log is emptied. Then the next attempt is made after the log
// has grown by the same size again.
func (db *DB) CheckpointIfLarge(ctx context.Context) (large bool, err error) {
	db.mu.Lock()
	next := db.nextCheckpoint
	db.mu.Unlock()
	info, err := os.Stat(db.options.Path + "-wal")
	if err != nil || info.Size() < next {
		return false, nil
	}
	emptied, err := db.Checkpoint(ctx)
	next = checkpointSize
	if !emptied {
		next += info.Size()
	}
	db.mu.Lock()
	db.nextCheckpoint = next
	db.mu.Unlock()
	return true, err
}

// UseLog sets the final journal mode of a database that was built. Otherwise the first writer
// would have to set it, and SQLite refuses that while there is any reader. The log itself is
// removed with the last connection.
func (db *DB) UseLog(ctx context.Context) error {
	pool, err := db.pool(db.mode)
	if err != nil {
		return err
	}
	var mode string
	if err := pool.QueryRowContext(ctx, `PRAGMA main.journal_mode = WAL`).Scan(&mode); err != nil {
		return MapError(err)
	}
	if mode != "wal" {
		return fmt.Errorf("the journal mode is still %q", mode)
	}
	return nil
}
