package vault

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
)

// computeDigest computes the digest from all rows.
func (tx *Tx) computeDigest(ctx context.Context) (digest.Digest, error) {
	c, err := digest.SelectColumns(ctx, tx)
	if err != nil {
		return digest.Digest{}, err
	}
	h := tx.sealer.rowHasher()
	content, err := tx.computeContent(ctx, c, h)
	if err != nil {
		return digest.Digest{}, err
	}
	sums, err := c.SumRows(ctx, tx, digest.SlotsTable(), h)
	if err != nil {
		return digest.Digest{}, err
	}
	slots := sums[0]
	m, err := selectMeta(ctx, tx)
	if err != nil {
		return digest.Digest{}, fmt.Errorf("read vault_meta: %w", err)
	}
	version, err := tx.schemaVersion(ctx)
	if err != nil {
		return digest.Digest{}, err
	}
	slots.Move(1, h.Hash(m.unlockingText(version)))
	return digest.Digest{Content: content, Slots: slots}, nil
}

// computeContent computes the digest of the registry and of the signers. If rows were copied,
// it also ends their check; then the error matches [ErrRollback].
func (tx *Tx) computeContent(ctx context.Context, c digest.Columns, h *digest.Hasher) (digest.RowSet, error) {
	var content digest.RowSet
	for _, t := range digest.ContentTables() {
		if sum, ok := tx.inserted.Sum(t.Name); ok {
			content = content.Plus(sum)
			continue
		}
		hashers := []*digest.Hasher{h}
		if tx.copied != nil && !tx.copied.Has(t.Name) {
			hashers = append(hashers, tx.copied.Hasher)
		}
		sums, err := c.SumRows(ctx, tx, t, hashers...)
		if err != nil {
			return digest.RowSet{}, err
		}
		content = content.Plus(sums[0])
		if len(sums) > 1 {
			tx.copied.Add(t.Name, sums[1])
		}
	}
	if tx.copied != nil {
		if err := tx.copied.End(); err != nil {
			return digest.RowSet{}, err
		}
		tx.copied = nil
	}
	return content, nil
}

// unlockingText is the text that the slots digest covers for vault_meta: what it says about the
// unlock methods, and the schema version. With the version, an older first page cannot run a
// migration again.
func (m Meta) unlockingText(schema int64) []byte {
	keyring := 0
	if m.Keyring {
		keyring = 1
	}
	return digest.RowText("vault_meta", "keyring", keyring, "slots_seq", m.SlotsSeq, "user_version", schema)
}

// rowText is the text of the slot's row. It is the same as the trigger's.
func (s Slot) rowText() []byte {
	return digest.RowText(digest.SlotsTable().Name,
		"created", s.Created.UnixMilli(),
		"kind", string(s.Kind),
		"label", s.Label,
		"recipient", s.Recipient,
		"wrapped", s.wrapped,
		"id", s.ID,
		"identity", anyText(s.Identity),
		"person", anyText(s.Person),
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
