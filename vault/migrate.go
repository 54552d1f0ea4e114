package vault

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

//go:embed migrations/*.sql
var embedded embed.FS

// applicationID is "RBEE", in the header of the database.
const applicationID = 0x52424545

func (c Config) schema() fs.FS {
	if c.migrations != nil {
		return c.migrations
	}
	sub, err := fs.Sub(embedded, "migrations")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return sub
}

// SchemaVersion is the version of the schema that this program writes.
func SchemaVersion() int64 { return Config{}.schemaVersion() }

// schemaVersion is the number at the beginning of the newest migration's name.
func (c Config) schemaVersion() int64 {
	var newest int64
	names, _ := fs.Glob(c.schema(), "*.sql")
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		n, _ := strconv.ParseInt(number, 10, 64)
		newest = max(newest, n)
	}
	return newest
}

// versionStore makes goose keep its version in the header's user_version. So there is only one
// version, and no table of goose's. Each migration sets the version in its own transaction,
// which also writes the audit row.
type versionStore struct {
	store *store
	from  int64 // the version before the run; 0 for a new database
}

var _ database.StoreExtender = versionStore{}

// Tablename implements [database.Store].
func (versionStore) Tablename() string { return "user_version" }

// TableExists implements [database.StoreExtender].
func (versionStore) TableExists(context.Context, database.DBTxConn) (bool, error) { return true, nil }

// CreateVersionTable implements [database.Store].
func (versionStore) CreateVersionTable(context.Context, database.DBTxConn) error { return nil }

// Insert implements [database.Store].
func (s versionStore) Insert(ctx context.Context, db database.DBTxConn, req database.InsertRequest) error {
	if _, err := db.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, req.Version)); err != nil {
		return err
	}
	if s.from == 0 {
		return nil // the code that makes the database writes its first audit row
	}
	return s.store.tx(db).Audit(ctx, Event{Action: ActionMigrate, Detail: fmt.Sprintf("schema %d", req.Version)})
}

// Delete implements [database.Store].
func (versionStore) Delete(context.Context, database.DBTxConn, int64) error {
	return database.ErrNotImplemented
}

// GetMigration implements [database.Store].
func (s versionStore) GetMigration(ctx context.Context, db database.DBTxConn, version int64) (*database.GetMigrationResult, error) {
	current, err := s.GetLatestVersion(ctx, db)
	if err != nil {
		return nil, err
	}
	if version > current {
		return nil, database.ErrVersionNotFound
	}
	return &database.GetMigrationResult{IsApplied: true}, nil
}

// GetLatestVersion implements [database.Store].
func (versionStore) GetLatestVersion(ctx context.Context, db database.DBTxConn) (int64, error) {
	var version int64
	err := db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version)
	return version, err
}

// ListMigrations implements [database.Store].
func (s versionStore) ListMigrations(ctx context.Context, db database.DBTxConn) ([]*database.ListMigrationsResult, error) {
	current, err := s.GetLatestVersion(ctx, db)
	if err != nil {
		return nil, err
	}
	var list []*database.ListMigrationsResult
	for version := current; version >= 0; version-- {
		list = append(list, &database.ListMigrationsResult{Version: version, IsApplied: true})
	}
	return list, nil
}

// migrate brings the database from a schema to the newest one. Each migration is one
// transaction. The caller holds the write lock.
func (s *store) migrate(ctx context.Context, from int64) error {
	db, err := s.db.Writer()
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectCustom, db, s.cfg.schema(), goose.WithStore(versionStore{store: s, from: from}))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", sqlcipher.MapError(err))
	}
	return sqlcipher.CheckForeignKeys(ctx, db)
}

// upgrade sets a verified copy of the vault aside and then migrates the vault. Nobody has the
// vault open, and the caller holds the exclusive lock.
func upgrade(ctx context.Context, cfg Config, p paths) (err error) {
	v, r, err := openUnder(ctx, cfg, p)
	if err != nil {
		return err
	}
	if r.version == cfg.schemaVersion() {
		return v.Close() // another process has already migrated it
	}
	// If the database is an older copy, it is refused before anything is done to it.
	if _, err := v.compare(ctx, r); err != nil {
		v.Close()
		return err
	}
	key := *v.key
	defer key.wipe()
	if err := v.quiesce(ctx); err != nil {
		return err
	}
	aside := p.before(r.version)
	for _, path := range append([]string{aside, aside + ".slots"}, sqlcipher.SideFiles(aside)...) {
		if err := durable.RemoveIfExists(cfg.fs(), path); err != nil {
			return fmt.Errorf("remove an earlier copy: %w", err)
		}
	}
	if err := durable.Copy(cfg.fs(), p.db, aside); err != nil {
		return fmt.Errorf("set a copy aside: %w", err)
	}
	if ok, err := durable.Exists(p.slots); err != nil {
		return err
	} else if ok {
		if err := durable.Copy(cfg.fs(), p.slots, aside+".slots"); err != nil {
			return fmt.Errorf("set a copy of the slots file aside: %w", err)
		}
	}
	if err := verifyFile(ctx, cfg, aside, &key); err != nil {
		return fmt.Errorf("verify the copy set aside: %w", err)
	}

	v, r, err = openUnder(ctx, cfg, p)
	if err != nil {
		return err
	}
	defer func() {
		if e := v.Close(); err == nil {
			err = e
		}
	}()
	cfg.log().Info("migrating the vault", "from", r.version, "to", cfg.schemaVersion(), "copy", aside)
	return v.locked(ctx, func() error { return v.migrate(ctx, r.version) })
}

// verifyFile runs the integrity checks on a database that no connection has open. It leaves no
// side file.
func verifyFile(ctx context.Context, cfg Config, path string, key *Key) error {
	s, err := openStore(cfg, path, key, "")
	if err != nil {
		return err
	}
	return errors.Join(s.db.CheckPages(ctx), s.close())
}
