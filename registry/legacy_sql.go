package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// legacyColumns returns the SQL expression that reads each of nodeFields. A file
// with ten columns has neither backends nor devices: they are read as NULL.
func legacyColumns(ctx context.Context, tx *sql.Tx) (columns [columnCount]string, err error) {
	names, err := selectLegacyColumnNames(ctx, tx)
	if err != nil {
		return columns, err
	}
	for i, field := range nodeFields {
		switch {
		case slices.Contains(names, field):
			// Without the plus sign the driver would convert a value to a time or
			// a boolean because of the column's declared type.
			columns[i] = "+" + field
		case i == colBackends, i == colDevices:
			columns[i] = "NULL"
		default:
			return columns, fmt.Errorf("%w: no column %s", ErrNotRegistry, field)
		}
	}
	return columns, nil
}

// selectLegacyColumnNames returns the names of the table's columns.
func selectLegacyColumnNames(ctx context.Context, tx *sql.Tx) ([]string, error) {
	var one int
	err := tx.QueryRowContext(ctx, `SELECT 1
	FROM sqlite_master
	WHERE type = 'table' AND name = 'beehives'`).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: no table beehives", ErrNotRegistry)
	}
	if err != nil {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `PRAGMA table_info(beehives)`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
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
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// selectLegacyRows yields the rows in the order in which they were inserted.
func selectLegacyRows(ctx context.Context, tx *sql.Tx, columns [columnCount]string) iter.Seq2[legacyRow, error] {
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
