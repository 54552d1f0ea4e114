package vault

import (
	"context"
	"database/sql"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

func insertSlot(ctx context.Context, tx *Tx, s Slot) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO slots (
			id,
			kind,
			label,
			person,
			recipient,
			identity,
			vouch,
			wrapped,
			created
		) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		s.ID,
		string(s.Kind),
		s.Label,
		wire.Nullable(s.Person),
		s.Recipient,
		wire.Nullable(s.Identity),
		wire.Nullable(s.vouch),
		s.wrapped,
		s.Created.UnixMilli(),
	)
	return err
}

// selectSlots returns the slots in the order of the slots file. Recovery slots come first:
// whoever reads the file by hand looks for them.
func selectSlots(ctx context.Context, tx *Tx) ([]Slot, error) {
	rows, err := tx.QueryContext(ctx, `
		SELECT
			id,
			kind,
			label,
			person,
			recipient,
			identity,
			vouch,
			wrapped,
			created
		FROM slots
		ORDER BY kind <> 'recovery', created, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var slots []Slot
	for rows.Next() {
		var s Slot
		var person, identity, vouch sql.NullString
		var created int64
		err := rows.Scan(
			&s.ID,
			&s.Kind,
			&s.Label,
			&person,
			&s.Recipient,
			&identity,
			&vouch,
			&s.wrapped,
			&created,
		)
		if err != nil {
			return nil, err
		}
		s.Person, s.Identity, s.vouch = person.String, identity.String, vouch.String
		s.Created = time.UnixMilli(created).UTC()
		slots = append(slots, s)
	}
	return slots, rows.Err()
}

func updateSlotVouch(ctx context.Context, tx *Tx, s Slot) error {
	_, err := tx.ExecContext(ctx, `UPDATE slots SET vouch = ? WHERE id = ?`, wire.Nullable(s.vouch), s.ID)
	return err
}

// deleteSlot returns [ErrNoSlot] if there is no such slot.
func deleteSlot(ctx context.Context, tx *Tx, id string) error {
	res, err := tx.ExecContext(ctx, `DELETE FROM slots WHERE id = ?`, id)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		err = ErrNoSlot
	}
	return err
}
