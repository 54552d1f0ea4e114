package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// selectLegacyColumns returns, for each of nodeFields, the expression that
// reads it: the original's later columns may be missing.
func selectLegacyColumns(ctx context.Context, tx *sql.Tx) (columns [12]string, err error) {
	var one int
	err = tx.QueryRowContext(ctx, `SELECT 1
	FROM sqlite_master
	WHERE type = 'table' AND name = 'beehives'`).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return columns, fmt.Errorf("%w: no table beehives", ErrNotRegistry)
	}
	if err != nil {
		return columns, err
	}
	rows, err := tx.QueryContext(ctx, `PRAGMA table_info(beehives)`)
	if err != nil {
		return columns, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			cid, notNull, pk   int
			name, declaredType string
			defaultValue       any
		)
		err := rows.Scan(
			&cid,
			&name,
			&declaredType,
			&notNull,
			&defaultValue,
			&pk,
		)
		if err != nil {
			return columns, err
		}
		for i, field := range nodeFields {
			if name == field {
				// The sign keeps the driver from making a time or a boolean of
				// a value because of the column's declared type.
				columns[i] = "+" + field
			}
		}
	}
	if err := rows.Err(); err != nil {
		return columns, err
	}
	for i, column := range columns {
		switch {
		case column != "":
		case nodeFields[i] == "backends", nodeFields[i] == "devices":
			columns[i] = "NULL"
		default:
			return columns, fmt.Errorf("%w: no column %s", ErrNotRegistry, nodeFields[i])
		}
	}
	return columns, nil
}

// selectLegacyRows yields the rows in the order in which they were written.
func selectLegacyRows(ctx context.Context, tx *sql.Tx, columns [12]string) iter.Seq2[legacyRow, error] {
	return func(yield func(legacyRow, error) bool) {
		rows, err := tx.QueryContext(ctx, `SELECT
			rowid,
			`+strings.Join(columns[:], ",\n\t\t\t")+`
		FROM beehives
		ORDER BY rowid`)
		if err != nil {
			yield(legacyRow{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var row legacyRow
			ptrs := []any{&row.rowid}
			for i := range row.values {
				ptrs = append(ptrs, &row.values[i])
			}
			if err := rows.Scan(ptrs...); err != nil {
				yield(legacyRow{}, err)
				return
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(legacyRow{}, err)
		}
	}
}
