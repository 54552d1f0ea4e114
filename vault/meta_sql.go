package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
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
			binding,
			origin_vault_id,
			origin_signer
		) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
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
		m.binding,
		wire.Nullable(m.OriginVaultID),
		wire.Nullable(m.OriginSigner),
	)
	return err
}

// checkVaultID refuses anything but a UUID: the id is used in messages, accounts and files.
func checkVaultID(s string) error {
	if u, err := uuid.Parse(s); err != nil || u.String() != s {
		return fmt.Errorf("%w: its vault id is not a UUID", ErrDamaged)
	}
	return nil
}

// updateMeta writes the columns that change together with the slots.
func updateMeta(ctx context.Context, tx *Tx, m Meta) error {
	_, err := tx.ExecContext(ctx, `UPDATE vault_meta SET keyring = ?, slots_seq = ?`, m.Keyring, m.SlotsSeq)
	return err
}

var errNoMeta = fmt.Errorf("%w: vault_meta has no row", ErrDamaged)

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
			binding,
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
		&m.binding,
		&originVaultID,
		&originSigner,
	)
	if errors.Is(err, sql.ErrNoRows) {
		return Meta{}, errNoMeta
	} else if err != nil {
		return Meta{}, err
	}
	if err := checkVaultID(m.VaultID); err != nil {
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
