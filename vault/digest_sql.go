package vault

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
)

func (tx *Tx) selectColumns(ctx context.Context) (columns, error) {
	rows, err := tx.QueryContext(ctx, columnsQuery)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := columns{}
	for rows.Next() {
		var table string
		var col column
		if err := rows.Scan(&table, &col.name, &col.notNull, &col.blob); err != nil {
			return nil, err
		}
		found.add(table, col)
	}
	return found, rows.Err()
}

// computeDigest computes the digest from all rows. It uses no index: an index may be older than
// its table.
func (tx *Tx) computeDigest(ctx context.Context) (digest, error) {
	c, err := tx.selectColumns(ctx)
	if err != nil {
		return digest{}, err
	}
	h := tx.sealer.rowHasher()
	content, err := tx.computeContent(ctx, c, h)
	if err != nil {
		return digest{}, err
	}
	sums, err := tx.sumRows(ctx, c, slotsTable, h)
	if err != nil {
		return digest{}, err
	}
	slots := sums[0]
	m, err := selectMeta(ctx, tx)
	if err != nil {
		return digest{}, fmt.Errorf("read vault_meta: %w", err)
	}
	version, err := tx.schemaVersion(ctx)
	if err != nil {
		return digest{}, err
	}
	slots.move(1, h.hash(m.unlockingText(version)))
	return digest{content, slots}, nil
}

// computeContent computes the digest of the registry and of the signers. If rows were copied,
// it also ends their check; then the error matches [ErrRollback].
func (tx *Tx) computeContent(ctx context.Context, c columns, h *rowHasher) (rowSet, error) {
	var content rowSet
	for _, t := range contentTables {
		hashers := []*rowHasher{h}
		if tx.copied != nil && !slices.Contains(tx.copied.tables, t.name) {
			hashers = append(hashers, tx.copied.hasher)
		}
		sums, err := tx.sumRows(ctx, c, t, hashers...)
		if err != nil {
			return rowSet{}, err
		}
		content = content.plus(sums[0])
		if len(sums) > 1 {
			tx.copied.add(t.name, sums[1])
		}
	}
	if tx.copied != nil {
		if err := compareContent(tx.copied.seen, tx.copied.want); err != nil {
			return rowSet{}, err
		}
		tx.copied = nil
	}
	return content, nil
}

// sumRows computes the digest of a table's rows under the key of each hasher.
func (tx *Tx) sumRows(ctx context.Context, c columns, t digestedTable, hashers ...*rowHasher) ([]rowSet, error) {
	sums := make([]rowSet, len(hashers))
	if len(c[t.name]) == 0 {
		return sums, nil // the table is not there before a migration
	}
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(`SELECT %s FROM main.%s AS t NOT INDEXED`, c.rowText(t, "t"), quoteName(t.name)))
	if err != nil {
		return nil, fmt.Errorf("digest table %s: %w", t.name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var text sql.RawBytes
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("digest table %s: %w", t.name, err)
		}
		for i, h := range hashers {
			sums[i].move(1, h.hash(text))
		}
	}
	return sums, rows.Err()
}

// unlockingText is the text that the slots digest covers for vault_meta: what it says about the
// unlock methods, and the schema version. With the version, an older first page cannot run a
// migration again.
func (m Meta) unlockingText(schema int64) []byte {
	keyring := 0
	if m.Keyring {
		keyring = 1
	}
	return rowText("vault_meta", "keyring", keyring, "slots_seq", m.SlotsSeq, "user_version", schema)
}

// rowText is the text of the slot's row. It is the same as the trigger's.
func (s Slot) rowText() []byte {
	return rowText(slotsTable.name,
		"created", s.Created.UnixMilli(),
		"kind", string(s.Kind),
		"label", s.Label,
		"recipient", s.Recipient,
		"wrapped", s.wrapped,
		"id", s.ID,
		"identity", anyText(s.Identity),
		"vouch", anyText(s.vouch),
	)
}

// anyText returns s as a column holds it: "" is NULL.
func anyText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// schemaVersion returns the schema's version. No transaction changes it after it was read.
func (tx *Tx) schemaVersion(ctx context.Context) (int64, error) {
	if tx.schema != 0 {
		return tx.schema, nil
	}
	err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&tx.schema)
	return tx.schema, err
}
