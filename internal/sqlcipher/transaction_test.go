package sqlcipher

import (
	"context"
	"errors"
	"testing"
)

// TestTransactionEnds: a transaction that is not committed is rolled back, however it ends. The
// only connection that writes is free again after it.
func TestTransactionEnds(t *testing.T) {
	db := open(t, build(t), testKey())
	refused := errors.New("refused")
	for name, end := range map[string]func(cancel func()) error{
		"error":          func(func()) error { return refused },
		"panic":          func(func()) error { panic(refused) },
		"context":        func(cancel func()) error { cancel(); return nil },
		"context, error": func(cancel func()) error { cancel(); return refused },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := func() (err error) {
				defer func() {
					if recover() != nil {
						err = refused
					}
				}()
				return db.Update(ctx, func(tx Tx) error {
					if _, err := tx.ExecContext(ctx, `INSERT INTO t VALUES (1)`); err != nil {
						t.Fatal(err)
					}
					return end(cancel)
				})
			}()
			if !errors.Is(err, refused) && !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if n, err := count(t, db); err != nil || n != 0 {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
	if err := insert(t, db); err != nil {
		t.Fatal(err)
	}
	if n, err := count(t, db); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// TestExecValues: the arguments are stored as they are, and nothing is stored in place of what
// the driver does not know.
func TestExecValues(t *testing.T) {
	db := open(t, build(t), testKey())
	ctx := t.Context()
	err := db.Update(ctx, func(tx Tx) error {
		const insert = `INSERT INTO t VALUES (?), (?), (?), (?), (?)`
		values := []any{int64(1), "two", []byte("three"), nil, 5.5}
		if n, err := ExecValues(ctx, tx, insert, values); err != nil || n != 5 {
			t.Errorf("%d rows, %v", n, err)
		}
		for name, wrong := range map[string][]any{
			"type":     {int64(1), "two", []byte("three"), nil, 5},
			"too few":  values[:4],
			"too many": append(values, nil),
		} {
			if n, err := ExecValues(ctx, tx, insert, wrong); err == nil || n != 0 {
				t.Errorf("%s: %d rows, %v", name, n, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var types string
	err = db.View(ctx, func(tx Tx) error {
		return tx.QueryRowContext(ctx, `SELECT group_concat(typeof(x) || ' ' || coalesce(x, '-')) FROM t`).Scan(&types)
	})
	if want := "integer 1,text two,blob three,null -,real 5.5"; err != nil || types != want {
		t.Errorf("%s, %v, want %s", types, err, want)
	}
	cancelled, cancel := context.WithCancel(ctx)
	err = db.Update(cancelled, func(tx Tx) error {
		cancel()
		_, err := ExecValues(cancelled, tx, `DELETE FROM t`, nil)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that the context ended", err)
	}
}
