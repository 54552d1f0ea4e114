package vault

import (
	"context"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

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
