package sqlcipher

import (
	"context"
	"errors"
	"testing"
)

// inserting returns a function that inserts a row and then returns err.
func inserting(ctx context.Context, err error) func(Tx) error {
	return func(tx Tx) error {
		_, e := tx.ExecContext(ctx, `INSERT INTO t VALUES (1)`)
		return errors.Join(e, err)
	}
}

// TestBatch: what a function did that failed is undone, wherever it comes in the batch. What the
// others did is committed, and not before Commit.
func TestBatch(t *testing.T) {
	db := open(t, build(t), testKey())
	ctx := t.Context()
	refused := errors.New("refused")
	b := db.NewBatch()
	for range 3 {
		if err := b.Run(ctx, inserting(ctx, refused)); !errors.Is(err, refused) {
			t.Errorf("error: %v", err)
		}
		func() {
			defer func() { recover() }()
			b.Run(ctx, func(tx Tx) error {
				inserting(ctx, nil)(tx)
				panic("in the middle")
			})
		}()
		cancelled, cancel := context.WithCancel(ctx)
		err := b.Run(cancelled, func(tx Tx) error {
			defer cancel()
			return inserting(ctx, nil)(tx)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if err := b.Run(cancelled, inserting(ctx, nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled before: %v", err)
		}
		if err := b.Run(ctx, inserting(ctx, nil)); err != nil {
			t.Error(err)
		}
	}
	if n, err := count(t, db); err != nil || n != 0 {
		t.Errorf("%d rows before the commit, %v", n, err)
	}
	if err := b.Commit(); err != nil || b.Lost() {
		t.Error(err)
	}
	if n, err := count(t, db); err != nil || n != 3 {
		t.Errorf("%d rows, %v, want 3", n, err)
	}
}

// TestBatchLost: after an error at which SQLite rolls back the whole transaction, nobody is told
// that a change is stored.
func TestBatchLost(t *testing.T) {
	db := open(t, build(t), testKey())
	ctx := t.Context()
	err := db.Update(ctx, func(tx Tx) error {
		_, err := tx.ExecContext(ctx, `CREATE UNIQUE INDEX once ON t (x)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	if err := b.Run(ctx, inserting(ctx, nil)); err != nil {
		t.Fatal(err)
	}
	err = b.Run(ctx, func(tx Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR ROLLBACK INTO t VALUES (1)`)
		return err
	})
	if err == nil || !b.Lost() {
		t.Errorf("error %v, lost: %t", err, b.Lost())
	}
	if err := b.Run(ctx, func(Tx) error { return nil }); err == nil {
		t.Error("a function joined what is lost")
	}
	if err := b.Commit(); err == nil {
		t.Error("what is lost was committed")
	}
	if n, err := count(t, db); err != nil || n != 0 {
		t.Errorf("%d rows, %v", n, err)
	}
	if err := db.Update(ctx, inserting(ctx, nil)); err != nil {
		t.Error(err)
	}
}
