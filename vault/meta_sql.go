package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

func insertMeta(ctx context.Context, tx *Tx, m Meta) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO vault_meta (
			one,
			vault_id,
			key_id,
			generation,
			created,
			key_created,
			class,
			keyring,
			slots_seq,
			signer,
			signing_key,
			origin_vault_id,
			origin_signer
		) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		m.VaultID,
		m.KeyID.String(),
		m.Generation,
		m.Created.UnixMilli(),
		m.KeyCreated.UnixMilli(),
		string(m.Class),
		m.Keyring,
		m.SlotsSeq,
		m.Signer,
		m.signingKey,
		nullable(m.OriginVaultID),
		nullable(m.OriginSigner),
	)
	return err
}

func selectMeta(ctx context.Context, tx *Tx) (Meta, error) {
	var m Meta
	var keyID string
	var created, keyCreated int64
	var originVaultID, originSigner sql.NullString
	err := tx.QueryRowContext(ctx, `
		SELECT
			vault_id,
			key_id,
			generation,
			created,
			key_created,
			class,
			keyring,
			slots_seq,
			signer,
			signing_key,
			origin_vault_id,
			origin_signer
		FROM vault_meta`,
	).Scan(
		&m.VaultID,
		&keyID,
		&m.Generation,
		&created,
		&keyCreated,
		&m.Class,
		&m.Keyring,
		&m.SlotsSeq,
		&m.Signer,
		&m.signingKey,
		&originVaultID,
		&originSigner,
	)
	if errors.Is(err, sql.ErrNoRows) {
		return Meta{}, fmt.Errorf("%w: no row of vault_meta", ErrDamaged)
	} else if err != nil {
		return Meta{}, err
	}
	if m.KeyID, err = ParseKeyID(keyID); err != nil {
		return Meta{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	m.Created = time.UnixMilli(created).UTC()
	m.KeyCreated = time.UnixMilli(keyCreated).UTC()
	m.OriginVaultID, m.OriginSigner = originVaultID.String, originSigner.String
	return m, nil
}
