package vault

import (
	"context"
	"database/sql"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

func insertSigner(ctx context.Context, tx *Tx, s Signer) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO signers (
			generation,
			public_key,
			certificate,
			created,
			sheet
		) VALUES (?, ?, ?, ?, ?)`,
		s.Generation,
		s.PublicKey,
		wire.Nullable(s.Certificate),
		s.Created.UnixMilli(),
		sql.NullInt64{Int64: s.Sheet.UnixMilli(), Valid: !s.Sheet.IsZero()},
	)
	return err
}

func selectSigners(ctx context.Context, tx *Tx) ([]Signer, error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT
			s.generation,
			s.public_key,
			s.certificate,
			s.created,
			s.sheet,
			`+tx.Checked("signers", "s")+`
		FROM signers AS s
		ORDER BY s.generation`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var signers []Signer
	for rows.Next() {
		var s Signer
		var certificate sql.NullString
		var created int64
		var sheet sql.NullInt64
		var hash []byte
		err := rows.Scan(
			&s.Generation,
			&s.PublicKey,
			&certificate,
			&created,
			&sheet,
			&hash,
		)
		if err != nil {
			return nil, err
		}
		tx.CountRow("signers", hash)
		s.Certificate = certificate.String
		s.Created = time.UnixMilli(created).UTC()
		if sheet.Valid {
			s.Sheet = time.UnixMilli(sheet.Int64).UTC()
		}
		signers = append(signers, s)
	}
	return signers, rows.Err()
}

// updateSheet records that a sheet with the current signer was handed out. That is state and is
// not audited.
func updateSheet(ctx context.Context, tx *Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE signers SET sheet = ? WHERE generation = (SELECT max(generation) FROM signers)`, tx.now.UnixMilli())
	return err
}
