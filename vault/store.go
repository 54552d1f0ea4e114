package vault

import (
	"context"
	"errors"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// store is a vault's database under a key: transactions that seal, digest and audit. It
// takes no lock and knows no file but the database.
type store struct {
	cfg    Config
	key    *Key
	sealer sealer
	db     *sqlcipher.DB
	build  bool
	moved  digest // how the transaction that writes has changed the digest
}

// openStore makes a handle of the database at path under a key, of which it keeps a copy.
// It reads nothing. The vault's id is "" as long as it was not read.
func openStore(cfg Config, path string, key *Key, vaultID string) (*store, error) {
	return newStore(cfg, key, vaultID, sqlcipher.Options{Path: path})
}

// buildStore is openStore for a database that is being built. Its rows come from old, or
// old is nil.
func buildStore(cfg Config, path string, key *Key, vaultID string, old *attachment) (*store, error) {
	o := sqlcipher.Options{Path: path, Build: true}
	if old != nil {
		derived := old.key.derive(purposeSQLCipher)
		defer wipe(derived)
		o.Old = &sqlcipher.Attachment{Path: old.path, Key: derived, Salt: sqlcipher.Salt(old.key.id)}
	}
	return newStore(cfg, key, vaultID, o)
}

// attachment is the database that the rows of another one come from.
type attachment struct {
	path string
	key  *Key
}

func newStore(cfg Config, key *Key, vaultID string, o sqlcipher.Options) (*store, error) {
	copied := *key
	s := &store{cfg: cfg, key: &copied, sealer: newSealer(key, vaultID), build: o.Build}
	derived := key.derive(purposeSQLCipher)
	defer wipe(derived)
	o.Key, o.Salt, o.Prepare = derived, sqlcipher.Salt(key.id), s.maintainDigest
	db, err := sqlcipher.Open(o)
	if err != nil {
		s.wipe()
		return nil, err
	}
	s.db = db
	return s, nil
}

// wipe takes the keys out of memory: best effort.
func (s *store) wipe() {
	s.key.wipe()
	s.sealer.wipe()
}

// close closes the database and wipes the keys.
func (s *store) close() error {
	defer s.wipe()
	return s.db.Close()
}

// Tx is a transaction. It is for the one goroutine that fn runs in.
type Tx struct {
	sqlcipher.Tx
	cfg     *Config
	now     time.Time
	sealer  sealer
	audited auditing // what Audit wrote
	// moved is how the rows have changed since the last audit row; nil: nobody keeps
	// track, and the next audit row computes the digest from the rows as they stand.
	moved  *digest
	check  *contentCheck // under way, or nil
	copied *copiedCheck  // under way, or nil
}

// Now returns the transaction's one instant: UTC, whole milliseconds.
func (tx *Tx) Now() time.Time { return tx.now }

func (tx *Tx) actor(ctx context.Context) Actor { return tx.cfg.actor(ctx) }

func (s *store) tx(t sqlcipher.Tx) *Tx {
	return &Tx{Tx: t, cfg: &s.cfg, now: s.cfg.now(), sealer: s.sealer}
}

// view runs fn in a read transaction.
func (s *store) view(ctx context.Context, fn func(tx *Tx) error) error {
	return s.db.View(ctx, func(t sqlcipher.Tx) error { return fn(s.tx(t)) })
}

// update runs fn in a write transaction and commits it when fn returns nil. It reports
// what fn wrote into the audit log. A change of rows that the digest covers must have its
// audit row.
func (s *store) update(ctx context.Context, fn func(tx *Tx) error) (auditing, error) {
	var audited auditing
	err := s.db.Update(ctx, func(t sqlcipher.Tx) error {
		tx := s.tx(t)
		if !s.build {
			s.moved = digest{}
			tx.moved = &s.moved
		}
		if err := fn(tx); err != nil {
			return err
		}
		if tx.moved != nil && *tx.moved != (digest{}) {
			return errors.New("commit: rows were changed that no audit row tells of")
		}
		if tx.copied != nil {
			return errors.New("commit: no audit row ended the check of the copied rows")
		}
		audited = tx.audited
		return nil
	})
	return audited, err
}
