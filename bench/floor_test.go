package bench

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// floorSchema is the part of the vault's schema that a write needs.
const floorSchema = `
	CREATE TABLE nodes (name TEXT PRIMARY KEY NOT NULL, filler TEXT, status TEXT) WITHOUT ROWID;
	CREATE TABLE changes (seq INTEGER PRIMARY KEY, name TEXT NOT NULL);
	CREATE TABLE log (seq INTEGER PRIMARY KEY, filler BLOB);`

// newFloor makes a keyed database of a thousand rows, without anything of a vault.
func newFloor(b *testing.B) *sqlcipher.DB {
	b.Helper()
	o := sqlcipher.Options{
		Path:  filepath.Join(b.TempDir(), "floor.db"),
		Key:   bytes.Repeat([]byte{7}, sqlcipher.KeySize),
		Salt:  sqlcipher.Salt{1},
		Build: true,
	}
	if err := os.WriteFile(o.Path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	db, err := sqlcipher.Open(o)
	if err != nil {
		b.Fatal(err)
	}
	err = db.Update(b.Context(), func(tx sqlcipher.Tx) error {
		if _, err := tx.ExecContext(b.Context(), floorSchema); err != nil {
			return err
		}
		for _, n := range fleet(1_000) {
			if _, err := tx.ExecContext(b.Context(), `INSERT INTO nodes VALUES (?, hex(zeroblob(80)), '')`, n.Name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = db.UseLog(b.Context())
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	o.Build = false
	if db, err = sqlcipher.Open(o); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}

// BenchmarkFloor measures what a keyed connection needs at least for as many pages and flushes
// as a write of the vault, beside the same reference as the vault.
func BenchmarkFloor(b *testing.B) {
	nodes := fleet(1_000)
	for _, floor := range []struct {
		name, op string
		queries  []string
	}{
		{"status", "status", []string{
			`UPDATE nodes SET status = ?2 WHERE name = ?1`,
			`INSERT INTO changes (name) VALUES (?1 || substr(?2, 1, 0))`,
		}},
		{"add", "audited", []string{
			`INSERT INTO nodes VALUES (?2 || ?1, hex(zeroblob(80)), '')`,
			`INSERT INTO changes (name) VALUES (?1 || substr(?2, 1, 0))`,
			`INSERT INTO log (filler) VALUES (zeroblob(500 + length(?1 || ?2)))`,
		}},
	} {
		b.Run(floor.name, func(b *testing.B) {
			db, turn := newFloor(b), 0
			ours := repeat(b, func(i int) error {
				turn++
				return db.Update(b.Context(), func(tx sqlcipher.Tx) error {
					return execAll(b.Context(), tx, floor.queries, nodes[i%len(nodes)].Name, turn)
				})
			})
			compare(b, ours, startReference(b, nodes).side(b, floor.op))
		})
	}
}

func execAll(ctx context.Context, tx sqlcipher.Tx, queries []string, args ...any) error {
	for _, query := range queries {
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return err
		}
	}
	return nil
}
