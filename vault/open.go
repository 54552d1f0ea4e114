package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// Open opens the vault at cfg.Path. It gets the key from the first source that is present. It
// migrates an older schema, after it has set a copy aside. It settles what an interrupted
// transition left behind.
//
// Errors: [ErrNoVault], [ErrMissing], [ErrPlaintext], [ErrInsecure], [ErrAlreadyOpen],
// [ErrLocked], [ErrNoUnlockMethod], [ErrWrongKey], an error of package keyring, [ErrUnknownKeyID],
// [ErrDamaged], [ErrRollback], [ErrNewer], and those of the signer: [ErrOtherVault],
// [ErrForeignSigner], [ErrSuccessor], [ErrUnvouched]. After any of them the vault is unchanged.
// The caller closes the vault.
func Open(ctx context.Context, cfg Config) (*Vault, error) {
	p, err := newPaths(cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := mustExist(p); err != nil {
		return nil, err
	}
	if err := p.checkPrivate(); err != nil {
		return nil, err
	}
	if err := p.checkPlace(cfg); err != nil {
		return nil, err
	}
	lock := durable.NewLock(p.lock)
	cfg.accepted = new(string)
	for {
		if err := take(ctx, cfg, lock, lock.Shared); err != nil {
			return nil, err
		}
		v, r, err := openUnder(ctx, cfg, p)
		if err == nil && r.version == cfg.schemaVersion() {
			if err = v.settleIfNeeded(ctx, r); err == nil {
				v.lock = lock
				v.storeVouch(ctx)
				return v, nil
			}
		}
		var known unlocked // so that no source is asked again under the exclusive lock
		if v != nil {
			key := *v.key
			known = unlocked{key: &key, source: v.source, opener: v.opener}
			defer key.wipe()
			v.Close()
		}
		lock.Unlock()
		if err != nil {
			return nil, err
		}
		if p.setAside() {
			return nil, fmt.Errorf("%w: its schema %d is older than this program's %d; put it in place to use it", ErrReadOnly, r.version, cfg.schemaVersion())
		}
		release, err := takeAlone(ctx, cfg, p)
		if err != nil {
			return nil, err
		}
		asked := cfg
		asked.known = &known
		err = upgrade(ctx, asked, p)
		release()
		if err != nil {
			return nil, err
		}
	}
}

// takeAlone takes the exclusive lock, with the turn: the sessions of other processes give way.
// Each has the configured wait.
func takeAlone(ctx context.Context, cfg Config, p paths) (release func(), err error) {
	turn, lock := durable.NewLock(p.turn), durable.NewLock(p.lock)
	if err := take(ctx, cfg, turn, turn.Exclusive); err != nil {
		return nil, err
	}
	if err := take(ctx, cfg, lock, lock.Exclusive); err != nil {
		turn.Unlock()
		return nil, err
	}
	return func() {
		lock.Unlock()
		turn.Unlock()
	}, nil
}

// take takes the lock within the configured wait, or returns an error that names its holders.
func take(ctx context.Context, cfg Config, l *durable.Lock, how func(context.Context) error) error {
	wait, cancel := context.WithTimeout(ctx, cfg.wait())
	defer cancel()
	if err := how(wait); err != nil {
		return lockError(ctx, l, err)
	}
	return nil
}

// mustExist returns an error if there is no database: [ErrMissing] if the slots file names one,
// else [ErrNoVault].
func mustExist(p paths) error {
	if ok, err := durable.Exists(p.db); err != nil || ok {
		return err
	}
	file, err := readSlotsFile(p.slots)
	if err != nil {
		return err
	}
	if file.present() && !file.interrupted(p) {
		return missing(p)
	}
	return fmt.Errorf("%w at %q", ErrNoVault, p.db)
}

func missing(p paths) error {
	return fmt.Errorf("%w: there is a slots file %q, but no %q", ErrMissing, p.slots, p.db)
}

// interrupted reports whether an interrupted init or restore left the slots file. There is no
// database beside it. All its entries are pending, and the file at the place of the new
// database, if any, is such a run's. If all entries are without slots, no such file is needed:
// the run ended before it had built a database.
func (f slotsFile) interrupted(p paths) bool {
	announced := true
	for _, e := range f.entries {
		if e.State != statePending {
			return false
		}
		announced = announced && len(e.Slots) == 0
	}
	return f.err == nil && (announced && len(f.entries) > 0 || p.unfinished(f))
}

// openUnder opens the database under a lock that the caller holds, and reads what an open
// needs. It accepts an older schema and refuses a newer one.
func openUnder(ctx context.Context, cfg Config, p paths) (*Vault, reading, error) {
	claim, err := sqlcipher.TakeClaim(p.db)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, reading{}, fmt.Errorf("%w at %q", ErrNoVault, p.db)
	case errors.Is(err, ErrAlreadyOpen):
		return nil, reading{}, err
	case err != nil:
		return nil, reading{}, fmt.Errorf("examine database: %w", err)
	}
	v, file, err := unlockAndAttach(ctx, cfg, p)
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

func unlockAndAttach(ctx context.Context, cfg Config, p paths) (*Vault, slotsFile, error) {
	id, err := readKeyID(p.db)
	if err != nil {
		return nil, slotsFile{}, err
	}
	file, err := readSlotsFile(p.slots)
	if err != nil {
		return nil, slotsFile{}, err
	}
	u, err := unlock(ctx, cfg, id, file)
	if err != nil {
		return nil, slotsFile{}, err
	}
	defer u.key.wipe()
	v, err := attach(cfg, p, u.key)
	if err != nil {
		return nil, slotsFile{}, err
	}
	v.source, v.opener, v.anchorItem = u.source, u.opener, u.anchor
	v.readOnly = p.setAside()
	v.vouched = file.find(id) != nil
	return v, file, nil
}

// reading is the slots file, and then what an open reads from the database, in one snapshot. A
// change of the slots is written to the table first: so a file that was read before the table
// is never ahead of it.
type reading struct {
	file    slotsFile
	version int64
	meta    Meta
	slots   []Slot
	head    AuditHead
	signers []Signer // nil if the keyring proves the key
	// replayed is an [ErrRollback] if the slots are not those of the newest audit row, else
	// nil. The caller may accept it.
	replayed error
}

// read reads everything but the signers. It compares the slots with the newest audit row. If
// the operator accepts a rollback, it compares all rows.
func (tx *Tx) read(ctx context.Context) (r reading, err error) {
	if r.version, err = tx.schemaVersion(ctx); err != nil {
		return reading{}, err
	}
	r.meta, r.slots, r.head, r.replayed = tx.checkedSlots(ctx)
	if r.replayed == nil && tx.cfg.AcceptRollback {
		r.replayed = tx.VerifyContent(ctx)
	}
	if r.replayed != nil && !errors.Is(r.replayed, ErrRollback) {
		return reading{}, r.replayed
	}
	return r, nil
}

// read reads the database alone.
func (v *Vault) read(ctx context.Context) (r reading, err error) {
	err = v.view(ctx, func(tx *Tx) (err error) {
		r, err = tx.read(ctx)
		return err
	})
	return r, err
}

// readAll reads the slots file and then the database.
func (v *Vault) readAll(ctx context.Context) (reading, error) {
	file, err := readSlotsFile(v.paths.slots)
	if err != nil {
		return reading{}, err
	}
	r, err := v.read(ctx)
	r.file = file
	return r, err
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
