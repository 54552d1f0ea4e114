package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// upgrade sets a verified copy of the vault aside and then migrates the vault. Nobody has the
// vault open, and the caller holds the exclusive lock. known is the key.
func upgrade(ctx context.Context, cfg Config, p paths, known *unlocked) (err error) {
	v, r, err := openUnder(ctx, cfg, p, known)
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
	defer key.Wipe()
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

	v, r, err = openUnder(ctx, cfg, p, known)
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
