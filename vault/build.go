package vault

import (
	"context"
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// build is step 2.
func (t *transition) build(ctx context.Context, before slotsFile) error {
	fsys, fresh := t.cfg.fs(), t.paths.fresh
	if err := t.checkFresh(before); err != nil {
		return err
	}
	// An empty file replaces an interrupted run's database in one step. If the file were
	// removed, a pending entry without it would mean that a vault is missing.
	if err := t.emptyFresh(); err != nil {
		return err
	}
	if before.err == nil { // else the unreadable slots file must not be replaced yet
		if err := t.announce(before.entries); err != nil {
			return err
		}
	}
	if err := t.buildAt(ctx, fresh); err != nil {
		return err
	}
	if err := fsys.Sync(fresh); err != nil {
		return err
	}
	return fsys.SyncDir(t.paths.dir)
}

// buildAt builds the new database in an empty file. It leaves no side file.
func (t *transition) buildAt(ctx context.Context, path string) error {
	s, err := buildStore(t.cfg, path, t.key, t.meta.VaultID, t.old)
	if err != nil {
		return err
	}
	err = s.migrate(ctx, 0)
	if err == nil {
		_, err = s.update(ctx, func(tx *Tx) error { return t.fillAll(ctx, tx) })
	}
	if err == nil {
		err = s.checkBuilt(ctx)
	}
	if err == nil {
		err = s.db.UseLog(ctx)
	}
	if e := s.close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return sqlcipher.CheckNoSideFiles(path)
}

// checkBuilt verifies every page of a new database. Meanwhile it compares the rows with the audit
// row that was written for them.
func (s *store) checkBuilt(ctx context.Context) error {
	rows := make(chan error, 1)
	go func() { rows <- s.view(ctx, func(tx *Tx) error { return tx.VerifyContent(ctx) }) }()
	err := s.db.CheckPages(ctx)
	if e := <-rows; err == nil && e != nil {
		err = fmt.Errorf("compare the rows with those that were inserted: %w", e)
	}
	return err
}

// announce writes the slots file with an entry for the new key that has no slots yet. If a kill
// leaves a part of the new database, this entry shows what it is.
func (t *transition) announce(entries []entry) error {
	announced := newEntry(t.meta, nil, t.key.Check(), statePending)
	announced.Keyring = false // nothing is in the keyring yet
	// An entry without slots only announced what was being built before.
	entries = slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return e.State == statePending && len(e.Slots) == 0 })
	entries = append(entries, announced)
	if err := durable.Replace(t.cfg.fs(), t.paths.slots, renderSlotsFile(entries)); err != nil {
		return fmt.Errorf("write slots file: %w", err)
	}
	return nil
}

// fillAll writes what every new vault has, and calls fill for the rest.
func (t *transition) fillAll(ctx context.Context, tx *Tx) error {
	if t.old == nil { // a rotation copies by other statements
		c, err := digest.SelectColumns(ctx, tx)
		if err != nil {
			return err
		}
		tx.inserted = digest.NewInserted(c, tx.sealer.rowHasher())
	}
	var event Event
	err := tx.withoutTriggers(ctx, func() (err error) {
		event, err = t.fill(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.makeSigner(ctx, tx); err != nil {
		return err
	}
	for i := range t.slots {
		if key := t.vouchKeys[t.slots[i].Recipient]; key != nil {
			t.slots[i].vouch = vouchFor(key, t.meta.VaultID, t.meta.Signer)
		}
		if wrapped, ok := t.wrapped[t.slots[i].ID]; ok {
			t.slots[i].wrapped = wrapped
		} else if err := t.slots[i].wrap(ctx, t.key, t.cfg.Plugins); err != nil {
			return err
		}
		if err := insertSlot(ctx, tx, t.slots[i]); err != nil {
			return fmt.Errorf("write slot: %w", err)
		}
	}
	if t.slots, err = selectSlots(ctx, tx); err != nil { // in the order of the slots file
		return fmt.Errorf("read slots: %w", err)
	}
	if err := insertMeta(ctx, tx, t.meta); err != nil {
		return fmt.Errorf("write vault_meta: %w", err)
	}
	return tx.Audit(ctx, event) // this row holds the digest of all rows
}

// makeSigner makes the signing key of the new generation. The predecessor certifies it, and it
// signs the binding of the new root key to the vault.
func (t *transition) makeSigner(ctx context.Context, tx *Tx) error {
	line, privatePEM, err := newSigningKey()
	if err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	defer wipe(privatePEM)
	s := Signer{Generation: t.meta.Generation, PublicKey: line, Created: t.meta.KeyCreated}
	if t.sheet {
		s.Sheet = s.Created
	}
	if t.predecessor != nil {
		certificate, err := Sign(certifiedText(t.meta.VaultID, line), t.predecessor, certificateNamespace)
		if err != nil {
			return fmt.Errorf("certify the signing key: %w", err)
		}
		s.Certificate = string(certificate)
	}
	if err := insertSigner(ctx, tx, s); err != nil {
		return fmt.Errorf("write signer: %w", err)
	}
	t.meta.Signer = line
	if t.meta.signingKey, err = tx.Seal(ctx, SealedSigningKey, t.meta.SignerFingerprint(), privatePEM); err != nil {
		return err
	}
	signer, err := parseSigningKey(privatePEM)
	if err != nil {
		return err
	}
	binding, err := Sign(boundText(t.meta, t.key.Check()), signer, bindingNamespace)
	t.meta.binding = string(binding)
	return err
}

// checkFresh checks that no file of somebody else is in the place of the new database.
func (t *transition) checkFresh(before slotsFile) error {
	if _, kept := t.paths.leftovers(before); len(kept) > 0 {
		return fmt.Errorf("%w: %q: it is in the place of the new database, and no interrupted run left it: move it to another name", ErrFileExists, kept[0])
	}
	return nil
}

// emptyFresh replaces the database that was being built by an empty file.
func (t *transition) emptyFresh() error {
	for _, path := range sqlcipher.SideFiles(t.paths.fresh) {
		if err := durable.RemoveIfExists(t.cfg.fs(), path); err != nil {
			return err
		}
	}
	return durable.Replace(t.cfg.fs(), t.paths.fresh, nil)
}
