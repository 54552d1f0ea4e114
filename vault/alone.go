package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// heldError says that another process has the vault open.
type heldError struct{ error }

func (e heldError) Unwrap() error { return e.error }

// acquireAll waits until every transaction of this process has ended, and blocks new ones.
func (v *Vault) acquireAll(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	if err := v.gate.Acquire(wait, everybody); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w by a transaction of this process that does not end", ErrLocked)
	}
	return nil
}

// awaitHolders waits until no other process seems to hold the lock, or limit is over. It only
// serves the readers of this process, which can continue meanwhile. The lock itself decides.
func (v *Vault) awaitHolders(ctx context.Context, limit time.Duration) {
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for len(durable.Holders(v.lock.Path())) > 0 {
		select {
		case <-wait.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// alone runs fn while nobody has the database open, not even this process. The caller holds the
// whole gate. fn may put another database in place and return its key; then the vault continues
// with that database.
//
// A shared lock cannot become an exclusive one in one step: another process that waits may get
// the lock in between. So everything is closed first, and checked afterwards. If another
// process has put its own database in place meanwhile, the vault is closed.
func (v *Vault) alone(ctx context.Context, wait time.Duration, fn func() (*Key, error)) error {
	if err := v.db.Disconnect(); err != nil {
		return err
	}
	v.epoch++
	v.lock.Unlock()
	limited := v.cfg
	limited.Wait = wait
	err := take(ctx, limited, v.lock, v.lock.Exclusive)
	if errors.Is(err, ErrLocked) {
		err = heldError{err}
	}
	var taken error
	changed := false
	if err == nil {
		if taken = v.checkInPlace(); taken == nil {
			// While the old file is held open, no other file can get its inode number. The old
			// file is listed as open under that number.
			var old *os.File
			if old, err = os.Open(v.paths.db); err == nil {
				var next *Key
				next, err = fn()
				changed = err == nil
				taken = v.takeUp(next)
				old.Close()
			}
		}
		v.lock.Unlock()
	}
	if taken == nil {
		// Whatever happened, reopen the vault, even if ctx was cancelled.
		if taken = take(context.WithoutCancel(ctx), v.cfg, v.lock, v.lock.Shared); taken == nil {
			if taken = v.checkInPlace(); taken == nil {
				return err
			}
			v.lock.Unlock()
		}
	}
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.store.close()
	v.claim.Release()
	if changed {
		return fmt.Errorf("the key was changed, but the vault had to be closed: %w", taken)
	}
	return errors.Join(err, fmt.Errorf("the vault had to be closed: %w", taken))
}

// checkInPlace checks that the file in place is still the one that this handle knows.
func (v *Vault) checkInPlace() error {
	id, err := readKeyID(v.paths.db)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w at %q", ErrNoVault, v.paths.db)
	}
	inode, statErr := os.Stat(v.paths.db)
	if err == nil {
		err = statErr
	}
	if err == nil && (id != v.key.ID() || !v.claim.Covers(inode)) {
		err = fmt.Errorf("%w: another process put a database of key id %s in place", ErrLocked, id)
	}
	return err
}

// takeUp switches to the database that fn has put in place, if it has.
func (v *Vault) takeUp(next *Key) error {
	id, err := readKeyID(v.paths.db)
	if err != nil || next == nil || id != next.ID() {
		return err
	}
	defer next.Wipe()
	s, err := openStore(v.cfg, v.paths.db, next, v.sealer.vaultID)
	if err != nil {
		return err
	}
	if err := v.claim.Move(v.paths.db); err != nil {
		s.close()
		return fmt.Errorf("examine database: %w", err)
	}
	v.store.close()
	v.store = s
	return nil
}
