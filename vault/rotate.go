package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// Rotated tells of a new key.
type Rotated struct {
	Generation int64
	KeyID      KeyID
	Previous   KeyID // of the key that opens nothing any more
	Slots      []Slot
	Keyring    bool
}

// Rotate gives the vault a new key: every row is copied into a new database
// under it, what is sealed is sealed anew, and every slot and the keyring get the
// new key. The old one then opens nothing but older copies of the database. It
// needs no secret besides the one that opened the vault.
//
// Other processes must have closed the vault: it waits for them, up to
// [Config.Wait], and then returns [ErrLocked], naming them. In this process
// running transactions come to their end, new ones wait, and none fails.
//
// Errors: [ErrReadOnly], [ErrUnsettled], [ErrLocked], [ErrRollback], [ErrPlugin]
// where a slot's plugin is missing, [ErrDamaged], and an error of package keyring
// where the vault has a keyring item and the keyring does not answer. After any
// of them the vault is as it was, with its old key.
func (v *Vault) Rotate(ctx context.Context) (Rotated, error) {
	// What can fail is tried while everybody goes on working.
	if _, err := v.PlanRotation(ctx); err != nil {
		return Rotated{}, err
	}
	if err := v.acceptRollback(ctx); err != nil {
		return Rotated{}, err
	}
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	if err := awaitHolders(wait, v.lock); err != nil {
		return Rotated{}, lockError(ctx, v.lock, err)
	}
	if err := v.gate.Acquire(wait, everybody); err != nil {
		if ctx.Err() != nil {
			return Rotated{}, ctx.Err()
		}
		return Rotated{}, fmt.Errorf("%w by a transaction of this process that does not end", ErrLocked)
	}
	defer v.gate.Release(everybody)
	var done Rotated
	err := v.alone(ctx, func() (*Key, error) {
		t := newTransition(v.cfg, v.paths, false)
		next := *t.key // the transition wipes its own
		err := t.rotate(ctx, v.key)
		done = Rotated{
			Generation: t.meta.Generation,
			KeyID:      next.id,
			Previous:   v.key.id,
			Slots:      t.slots,
			Keyring:    t.meta.Keyring,
		}
		return &next, err
	})
	if err != nil {
		return Rotated{}, fmt.Errorf("rotate: %w", err)
	}
	return done, nil
}

// PlanRotation does what a rotation can be tried by without changing anything:
// it sees that nobody else has the vault open, that the keyring answers where it
// is a way in, that the database is not an older copy, and that every slot's
// recipient takes a key. It returns what the rotation would give; KeyID stays
// empty. Errors are those of [Vault.Rotate].
func (v *Vault) PlanRotation(ctx context.Context) (Rotated, error) {
	if err := v.enter(ctx); err != nil {
		return Rotated{}, err
	}
	defer v.leave()
	if err := v.changeable(); err != nil {
		return Rotated{}, err
	}
	m, slots, err := v.metaAndSlots(ctx)
	if err != nil {
		return Rotated{}, err
	}
	t := newTransition(v.cfg, v.paths, m.Keyring)
	defer t.key.wipe()
	if m.Keyring {
		if v.cfg.Keyring == nil {
			return Rotated{}, fmt.Errorf("%w: the vault's key lies in one, and none is here to take the new key", keyring.ErrUnavailable)
		}
		if err := t.probeKeyring(ctx); err != nil {
			return Rotated{}, err
		}
		if err := v.compareAnchor(ctx, m); err != nil && !(v.cfg.AcceptRollback && errors.Is(err, ErrRollback)) {
			return Rotated{}, err
		}
	}
	for _, s := range slots {
		if err := v.cfg.wrap(&s, t.key); err != nil {
			return Rotated{}, err
		}
	}
	return Rotated{Generation: m.Generation + 1, Previous: m.KeyID, Slots: slots, Keyring: m.Keyring}, nil
}

// awaitHolders waits until no other process is known to hold the lock. It is a
// courtesy to the readers of this process, which need not wait meanwhile; what
// counts is the lock.
func awaitHolders(ctx context.Context, l *durable.Lock) error {
	for len(durable.Holders(l.Path())) > 0 {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return durable.ErrLocked
			}
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// alone runs fn while no process, this one included, has the database open. The
// caller has the gate to itself. fn may put another database in place, under the
// key that it returns; then the vault goes on with that one.
//
// The shared lock cannot be turned into an exclusive one in one step: whoever
// waits may come between. So everything is closed before, and looked at
// afterwards; where another process put its own database in place meanwhile, the
// vault is closed.
func (v *Vault) alone(ctx context.Context, fn func() (*Key, error)) error {
	if err := v.closePools(); err != nil {
		return err
	}
	opened.remove(v.inode)
	v.lock.Unlock()
	var next *Key
	err := take(ctx, v.cfg, v.lock, v.lock.Exclusive)
	if err == nil {
		next, err = fn()
		v.lock.Unlock()
	}
	// Whatever happened, the vault is opened again, also for who has given up.
	again := take(context.WithoutCancel(ctx), v.cfg, v.lock, v.lock.Shared)
	if again == nil {
		if again = v.resume(next); again == nil {
			return err
		}
		v.lock.Unlock()
	}
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.wipe()
	return errors.Join(err, fmt.Errorf("the vault had to be closed: %w", again))
}

// resume goes on with the database that is in place, if it is under the key so
// far or the next one.
func (v *Vault) resume(next *Key) error {
	inode, err := os.Stat(v.paths.db)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w at %q", ErrNoVault, v.paths.db)
	} else if err != nil {
		return fmt.Errorf("examine database: %w", err)
	}
	if !opened.add(inode) {
		return ErrAlreadyOpen
	}
	id, err := readKeyID(v.paths.db)
	switch {
	case err != nil:
	case next != nil && id == next.id:
		v.wipe()
		v.adopt(next, inode, v.sealer.vaultID)
		next.wipe()
		return nil
	case id == v.key.id:
		v.inode = inode
		return nil
	default:
		err = fmt.Errorf("%w: another process put a database of key id %s in place", ErrLocked, id)
	}
	opened.remove(inode)
	return err
}

// rotate is a transition that keeps the vault. The exclusive lock is held, and
// nobody has the database open.
func (t *transition) rotate(ctx context.Context, key *Key) error {
	v, err := attach(t.cfg, t.paths, t.paths.db, key, writing)
	if err != nil {
		return err
	}
	if !opened.add(v.inode) {
		return ErrAlreadyOpen
	}
	if _, err := v.prove(ctx); err != nil {
		v.Close()
		return err
	}
	m, slots, err := v.metaAndSlots(ctx)
	from := sealer{key: key.derive(purposeSeal), vaultID: m.VaultID}
	defer wipe(from.key)
	if err == nil {
		err = v.quiesce(ctx)
	} else {
		v.Close()
	}
	if err != nil {
		return err
	}
	t.inPlace = &key.id
	t.old = &attachment{path: t.paths.db, key: key}
	t.slots = slots
	t.meta.VaultID, t.meta.Created, t.meta.Class, t.meta.Keyring, t.meta.SlotsSeq = m.VaultID, m.Created, m.Class, m.Keyring, m.SlotsSeq
	t.meta.Generation = m.Generation + 1
	t.meta.Signer, t.meta.OriginVaultID, t.meta.OriginSigner = m.Signer, m.OriginVaultID, m.OriginSigner
	t.fill = func(ctx context.Context, tx *Tx) (err error) {
		if err := copyRows(ctx, tx, from); err != nil {
			return err
		}
		if t.meta.signingKey, err = reseal(ctx, tx, from, SealedSigningKey, m.SignerFingerprint(), m.signingKey); err != nil {
			return err
		}
		return tx.Audit(ctx, Event{
			Action:  "vault.rotate",
			Subject: m.VaultID,
			Detail:  fmt.Sprintf("generation %d, %d slots, keyring %t", t.meta.Generation, len(slots), m.Keyring),
		})
	}
	return t.run(ctx)
}
