package vault

import (
	"context"
	"errors"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// store is a vault's database under a key. Its transactions seal, digest and audit. It takes no
// lock and uses no file but the database.
type store struct {
	cfg    Config
	key    *Key
	sealer sealer
	db     *sqlcipher.DB
	build  bool
	// What the function that writes has done so far:
	moved    digest.Digest // how it has changed the digest
	dangling bool          // it may have left a jump to a node that does not exist
}

// openStore makes a handle of the database at path under a key. It copies the key and reads
// nothing. vaultID is "" until it has been read from the database.
func openStore(cfg Config, path string, key *Key, vaultID string) (*store, error) {
	return newStore(cfg, key, vaultID, sqlcipher.Options{Path: path})
}

// buildStore is openStore for a database that is being built. Its rows come from old, or old is
// nil.
func buildStore(cfg Config, path string, key *Key, vaultID string, old *attachment) (*store, error) {
	o := sqlcipher.Options{Path: path, Build: true}
	if old != nil {
		derived := old.key.Derive(rootkey.SQLCipher)
		defer wipe(derived)
		o.Old = &sqlcipher.Attachment{Path: old.path, Key: derived, Salt: sqlcipher.Salt(old.key.ID())}
	}
	return newStore(cfg, key, vaultID, o)
}

// attachment is the database from which rows are copied.
type attachment struct {
	path string
	key  *Key
}

func newStore(cfg Config, key *Key, vaultID string, o sqlcipher.Options) (*store, error) {
	copied := *key
	s := &store{cfg: cfg, key: &copied, sealer: newSealer(key, vaultID), build: o.Build}
	derived := key.Derive(rootkey.SQLCipher)
	defer wipe(derived)
	o.Key, o.Salt = derived, sqlcipher.Salt(key.ID())
	o.Prepare = s.addTriggers
	db, err := sqlcipher.Open(o)
	if err != nil {
		s.wipe()
		return nil, err
	}
	s.db = db
	return s, nil
}

// addTriggers adds the triggers of a new write connection. Any other schema than the present one
// is migrated first, and the migration computes the digest from all rows.
func (s *store) addTriggers(conn *sqlcipher.Conn) error {
	version, err := conn.Query(`PRAGMA user_version`)
	if err != nil || version[0][0] != s.cfg.schemaVersion() {
		return err
	}
	if err := digest.Maintain(conn, s.cfg.schemaVersion(), s.sealer.rowHasher(), &s.moved); err != nil {
		return err
	}
	return noticeDangling(conn, &s.dangling)
}

// wipe overwrites the keys, best effort.
func (s *store) wipe() {
	s.key.Wipe()
	s.sealer.wipe()
}

// close closes the database and wipes the keys.
func (s *store) close() error {
	defer s.wipe()
	return s.db.Close()
}

// Tx is a transaction. Only the goroutine that runs fn may use it. Rows must be closed before fn
// returns.
type Tx struct {
	sqlcipher.Tx
	cfg     *Config
	now     time.Time
	sealer  sealer
	schema  int64   // its version; 0 before it is read
	audited urgency // how soon the anchor must follow what Audit wrote
	// moved is how the rows have changed since the last audit row. Nil: the changes are not
	// tracked, and the next audit row computes the digest from the rows.
	moved    *digest.Digest
	check    *digest.Check     // running, or nil
	copied   *digest.CopyCheck // running, or nil
	inserted *digest.Inserted  // of a database that is being built, or nil
}

// Now returns the time of the transaction: always the same, UTC, whole milliseconds.
func (tx *Tx) Now() time.Time { return tx.now }

func (tx *Tx) actor(ctx context.Context) Actor { return tx.cfg.actor(ctx) }

func (s *store) tx(t sqlcipher.Tx) *Tx {
	return &Tx{Tx: t, cfg: &s.cfg, now: s.cfg.now(), sealer: s.sealer}
}

// view runs fn in a read transaction.
func (s *store) view(ctx context.Context, fn func(tx *Tx) error) error {
	return s.db.View(ctx, func(t sqlcipher.Tx) error { return fn(s.tx(t)) })
}

// update runs fn in a write transaction and commits it if fn returns nil. It returns how soon
// the anchor must follow.
func (s *store) update(ctx context.Context, fn func(tx *Tx) error) (urgency, error) {
	b := s.db.NewBatch()
	audited, err := s.run(ctx, b, fn)
	if err == nil {
		err = b.Commit()
	}
	return audited, err
}

// run runs fn in a batch. It returns how soon the anchor must follow the commit. If fn changed
// rows that the digest covers, it must have written an audit row after them.
func (s *store) run(ctx context.Context, b *sqlcipher.Batch, fn func(tx *Tx) error) (urgency, error) {
	var audited urgency
	err := b.Run(ctx, func(t sqlcipher.Tx) error {
		tx := s.tx(t)
		if !s.build {
			s.moved, s.dangling = digest.Digest{}, false
			tx.moved = &s.moved
		}
		if err := fn(tx); err != nil {
			return err
		}
		if tx.moved != nil && *tx.moved != (digest.Digest{}) {
			return errors.New("commit: no audit row covers the last changes")
		}
		if tx.copied != nil {
			return errors.New("commit: no audit row ended the check of the copied rows")
		}
		audited = tx.audited
		if s.dangling {
			return tx.checkJumps(ctx)
		}
		return nil
	})
	return audited, err
}

// Seal encrypts a column value. Only this vault can open it, for the same kind and name: a key's
// fingerprint or a target's name.
func (tx *Tx) Seal(_ context.Context, kind SealedKind, name string, plaintext []byte) ([]byte, error) {
	return tx.sealer.seal(kind, name, plaintext)
}

// Unseal decrypts what [Tx.Seal] returned for the same kind and name. Otherwise the
// error matches [ErrDamaged]. The caller wipes the result.
func (tx *Tx) Unseal(_ context.Context, kind SealedKind, name string, sealed []byte) ([]byte, error) {
	return tx.sealer.open(kind, name, sealed)
}
