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

// Rotated tells of a new key.
type Rotated struct {
	Generation int64
	KeyID      KeyID
	Previous   KeyID // of the key that opens nothing any more
	Slots      []Slot
	Keyring    bool
	// Signer is the public key line of the new generation's signer: sheets that name the
	// one before still lead to it, by a certificate that a former reader could forge.
	Signer string
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
//
// Where another process puts its own database in place while this one waits for
// the locks, the handle is closed, and the error says so; if the key was changed
// by then, Rotated tells which it is.
func (v *Vault) Rotate(ctx context.Context) (Rotated, error) {
	// What can fail is tried while everybody goes on working.
	_, seen, err := v.planRotation(ctx)
	if err != nil {
		return Rotated{}, err
	}
	if err := v.acceptRollback(ctx); err != nil {
		return Rotated{}, err
	}
	begun := time.Now()
	if err := v.awaitHolders(ctx); err != nil {
		return Rotated{}, err
	}
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	if err := v.gate.Acquire(wait, everybody); err != nil {
		if ctx.Err() != nil {
			return Rotated{}, ctx.Err()
		}
		return Rotated{}, fmt.Errorf("%w by a transaction of this process that does not end", ErrLocked)
	}
	defer v.gate.Release(everybody)
	if err := v.changeable(); err != nil {
		return Rotated{}, err
	}
	var done Rotated
	err = v.alone(ctx, max(v.cfg.wait()-time.Since(begun), lastTry), func() (*Key, error) {
		t := newTransition(v.cfg, v.paths, false)
		next := *t.key // the transition wipes its own
		err := t.rotate(ctx, v.key, seen)
		done = Rotated{
			Generation: t.meta.Generation,
			KeyID:      next.id,
			Previous:   v.key.id,
			Slots:      t.slots,
			Keyring:    t.meta.Keyring,
			Signer:     t.meta.Signer,
		}
		return &next, err
	})
	if err != nil {
		return done, fmt.Errorf("rotate: %w", err)
	}
	// The next open would do what settling left undone; this handle goes on, and
	// nothing may change the vault before.
	if err := v.settleIfNeeded(context.WithoutCancel(ctx)); err != nil {
		v.setUnsettled(err)
	}
	return done, nil
}

// lastTry is how long the exclusive lock is tried for when the time to wait has
// run out.
const lastTry = 50 * time.Millisecond

// PlanRotation does what a rotation can be tried by without changing anything:
// it sees that nobody else has the vault open, that the keyring answers where it
// is a way in, that the database is not an older copy, and that every slot's
// recipient takes a key. It returns what the rotation would give; KeyID stays
// empty. Errors are those of [Vault.Rotate].
func (v *Vault) PlanRotation(ctx context.Context) (Rotated, error) {
	plan, _, err := v.planRotation(ctx)
	if err == nil && len(durable.Holders(v.lock.Path())) > 0 {
		err = lockError(ctx, v.lock, durable.ErrLocked)
	}
	return plan, err
}

// planRotation also returns how far the vault has come.
func (v *Vault) planRotation(ctx context.Context) (Rotated, anchor, error) {
	if err := v.enter(ctx); err != nil {
		return Rotated{}, anchor{}, err
	}
	defer v.leave()
	if err := v.resettle(ctx); err != nil {
		return Rotated{}, anchor{}, err
	}
	var seen anchor
	err := v.view(ctx, func(tx *Tx) (err error) {
		_, seen, err = tx.anchor(ctx)
		return err
	})
	if err != nil {
		return Rotated{}, anchor{}, err
	}
	m, slots, err := v.metaAndSlots(ctx)
	if err != nil {
		return Rotated{}, anchor{}, err
	}
	t := newTransition(v.cfg, v.paths, m.Keyring)
	defer t.key.wipe()
	if m.Keyring {
		if err := t.probeKeyring(ctx); err != nil {
			return Rotated{}, anchor{}, err
		}
		if err := v.compareAnchor(ctx, m); err != nil && !(v.cfg.AcceptRollback && errors.Is(err, ErrRollback)) {
			return Rotated{}, anchor{}, err
		}
	}
	for _, s := range slots {
		if err := v.cfg.wrap(&s, t.key); err != nil {
			return Rotated{}, anchor{}, err
		}
	}
	return Rotated{Generation: m.Generation + 1, Previous: m.KeyID, Slots: slots, Keyring: m.Keyring}, seen, nil
}

// awaitHolders waits until no other process seems to hold the lock, or the time is
// over. It is a courtesy to the readers of this process, which need not wait
// meanwhile; what decides is the lock.
func (v *Vault) awaitHolders(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, v.cfg.wait())
	defer cancel()
	for len(durable.Holders(v.lock.Path())) > 0 {
		select {
		case <-wait.Done():
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
func (v *Vault) alone(ctx context.Context, wait time.Duration, fn func() (*Key, error)) error {
	if err := v.closePools(); err != nil {
		return err
	}
	v.lock.Unlock()
	limited := v.cfg
	limited.Wait = wait
	err := take(ctx, limited, v.lock, v.lock.Exclusive)
	var taken error
	changed := false
	if err == nil {
		if taken = v.inPlace(); taken == nil {
			// Held open, the old file keeps its inode number, by which it is listed
			// as open, from becoming another file's.
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
		// Whatever happened, the vault is open again, also for who has given up.
		if taken = take(context.WithoutCancel(ctx), v.cfg, v.lock, v.lock.Shared); taken == nil {
			if taken = v.inPlace(); taken == nil {
				return err
			}
			v.lock.Unlock()
		}
	}
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	opened.remove(v.inode)
	v.wipe()
	if changed {
		return fmt.Errorf("the key was changed, but the vault had to be closed: %w", taken)
	}
	return errors.Join(err, fmt.Errorf("the vault had to be closed: %w", taken))
}

// inPlace sees that the file in place is the one that this handle knows.
func (v *Vault) inPlace() error {
	id, err := readKeyID(v.paths.db)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w at %q", ErrNoVault, v.paths.db)
	}
	inode, statErr := os.Stat(v.paths.db)
	if err == nil {
		err = statErr
	}
	if err == nil && (id != v.key.id || !os.SameFile(inode, v.inode)) {
		err = fmt.Errorf("%w: another process put a database of key id %s in place", ErrLocked, id)
	}
	return err
}

// takeUp goes on with the database that fn has put in place, if it has.
func (v *Vault) takeUp(next *Key) error {
	id, err := readKeyID(v.paths.db)
	if err != nil || next == nil || id != next.id {
		return err
	}
	inode, err := os.Stat(v.paths.db)
	if err != nil {
		return fmt.Errorf("examine database: %w", err)
	}
	opened.replace(v.inode, inode)
	v.wipe()
	v.adopt(next, inode, v.sealer.vaultID)
	next.wipe()
	return nil
}

// rotate is a transition that keeps the vault. The exclusive lock is held, and
// nobody has the database open. seen is how far the vault had come before that.
func (t *transition) rotate(ctx context.Context, key *Key, seen anchor) error {
	v, err := attach(t.cfg, t.paths, t.paths.db, key, writing)
	if err != nil {
		return err
	}
	m, slots, err := t.examineOld(ctx, v, seen)
	if err != nil {
		v.Close()
		return err
	}
	if err := v.quiesce(ctx); err != nil {
		return err
	}
	from := sealer{key: key.derive(purposeSeal), vaultID: m.VaultID}
	defer wipe(from.key)
	t.inPlace = &key.id
	t.old = &attachment{path: t.paths.db, key: key}
	t.slots = slots
	// All but the key stays as it is.
	id, created := t.meta.KeyID, t.meta.KeyCreated
	t.meta = m
	t.meta.KeyID, t.meta.KeyCreated = id, created
	t.meta.Generation++
	t.fill = func(ctx context.Context, tx *Tx) (Event, error) {
		event := Event{
			Action:  "vault.rotate",
			Subject: m.VaultID,
			Detail:  fmt.Sprintf("generation %d, %d slots, keyring %t", t.meta.Generation, len(slots), m.Keyring),
		}
		if err := copyRows(ctx, tx, from); err != nil {
			return event, err
		}
		privatePEM, err := from.open(SealedSigningKey, m.SignerFingerprint(), m.signingKey)
		if err != nil {
			return event, err
		}
		defer wipe(privatePEM)
		t.predecessor, err = parseSigningKey(privatePEM)
		return event, err
	}
	return t.run(ctx)
}

// examineOld looks again, now that nobody else can change anything: at the
// database, its slots file, and the keyring, as an open would.
func (t *transition) examineOld(ctx context.Context, v *Vault, seen anchor) (Meta, []Slot, error) {
	if _, err := v.prove(ctx); err != nil {
		return Meta{}, nil, err
	}
	m, slots, err := v.metaAndSlots(ctx)
	if err != nil {
		return Meta{}, nil, err
	}
	err = v.view(ctx, func(tx *Tx) error {
		_, err := seen.check(ctx, tx, m)
		return err
	})
	if err != nil {
		return Meta{}, nil, err
	}
	t.compared = m.Keyring
	if m.Keyring {
		t.meta.Keyring = true
		if err := t.probeKeyring(ctx); err != nil {
			return Meta{}, nil, err
		}
		v.source = FromKeyring // so that compare asks it for the anchor
	}
	file, s, err := v.compare(ctx)
	if err != nil {
		return Meta{}, nil, err
	}
	// The old key's entry first: until the commit it is the way in, and the file may
	// have been lost while the vault was open.
	return m, slots, v.locked(ctx, func() error { return v.writeCurrent(file, s) })
}
