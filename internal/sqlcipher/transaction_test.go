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
