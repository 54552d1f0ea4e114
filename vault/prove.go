package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// openUnder opens the database under a lock that the caller holds, and reads what an open
// needs. It accepts an older schema and refuses a newer one. If the key is known already, no
// source is asked for it; known may be nil.
func openUnder(ctx context.Context, cfg Config, p paths, known *unlocked) (*Vault, reading, error) {
	claim, err := sqlcipher.TakeClaim(p.db)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, reading{}, fmt.Errorf("%w at %q", ErrNoVault, p.db)
	case errors.Is(err, ErrAlreadyOpen):
		return nil, reading{}, err
	case err != nil:
		return nil, reading{}, fmt.Errorf("examine database: %w", err)
	}
	v, file, err := unlockAndAttach(ctx, cfg, p, known)
	if err != nil {
		claim.Release()
		return nil, reading{}, err
	}
	v.claim = claim
	r, err := v.prove(ctx, file)
	if err == nil && !cfg.anySigner {
		err = v.checkSigner(ctx, r)
	}
	if err != nil {
		v.Close()
		return nil, reading{}, err
	}
	return v, r, nil
}

func unlockAndAttach(ctx context.Context, cfg Config, p paths, known *unlocked) (*Vault, slotsFile, error) {
	id, err := readKeyID(p.db)
	if err != nil {
		return nil, slotsFile{}, err
	}
	file, err := readSlotsFile(p.slots)
	if err != nil {
		return nil, slotsFile{}, err
	}
	u, ok := known.copyFor(id)
	if !ok {
		if u, err = unlock(ctx, cfg, id, file); err != nil {
			return nil, slotsFile{}, err
		}
	}
	defer u.key.Wipe()
	v, err := attach(cfg, p, u.key)
	if err != nil {
		return nil, slotsFile{}, err
	}
	v.source, v.opener, v.anchorItem = u.source, u.opener, u.anchor
	v.readOnly = p.setAside()
	v.vouched = file.find(id) != nil
	return v, file, nil
}

// prove reads the database for the first time, after the slots file. If that confirmed the key, an
// unreadable database is damaged; otherwise the key may be wrong.
func (v *Vault) prove(ctx context.Context, file slotsFile) (r reading, err error) {
	var version int64
	err = v.view(ctx, func(tx *Tx) (err error) {
		// A few short reads: with a context that can end, database/sql starts a goroutine for
		// each.
		ctx := context.WithoutCancel(ctx)
		if version, err = v.readSchema(ctx, tx); err != nil {
			return err
		}
		if r, err = tx.read(ctx); err == nil && v.needsSigners() {
			r.signers, err = tx.Signers(ctx)
		}
		return err
	})
	if errors.Is(err, ErrDamaged) && version == 0 && !v.vouched {
		err = fmt.Errorf("%w (without a slots file, a damaged database and a wrong key cannot be told apart)", err)
	}
	if err != nil {
		return reading{}, fmt.Errorf("read %q: %w", v.paths.db, err)
	}
	v.sealer.vaultID = r.meta.VaultID
	for _, s := range r.slots { // the table's: the slots file is not authenticated
		if s.ID == v.opener.slot.ID {
			v.cfg.opener, v.store.cfg.opener = s.openedBy(), s.openedBy()
		}
	}
	r.file = file
	return r, nil
}

// readSchema returns the schema's version, or 0 if it cannot be read.
func (v *Vault) readSchema(ctx context.Context, tx *Tx) (int64, error) {
	var application int64
	if err := tx.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&application); err != nil {
		return 0, err
	}
	version, err := tx.schemaVersion(ctx)
	switch {
	case err != nil:
		return 0, err
	case application != applicationID || version < 1:
		return version, fmt.Errorf("%w: it is an encrypted database, but not a vault", ErrDamaged)
	case version > v.cfg.schemaVersion():
		return version, fmt.Errorf("%w: the vault has schema %d, this program knows %d", ErrNewer, version, v.cfg.schemaVersion())
	}
	return version, nil
}

// quiesce checkpoints the write-ahead log, closes every connection and checks that SQLite's
// side files are gone. If a log stayed beside a database that is then replaced, SQLite would
// replay it into the new database and destroy it. quiesce closes v. The caller holds the
// exclusive lock.
func (v *Vault) quiesce(ctx context.Context) error {
	err := v.locked(ctx, func() error {
		emptied, err := v.db.Checkpoint(ctx)
		if err == nil && !emptied {
			err = fmt.Errorf("%w: the write-ahead log cannot be checkpointed", ErrLocked)
		}
		return err
	})
	if e := v.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return sqlcipher.CheckNoSideFiles(v.paths.db)
}
