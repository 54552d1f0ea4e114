package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// Rotated describes a new key.
type Rotated struct {
	Generation int64
	KeyID      KeyID
	Previous   KeyID // of the previous key, which opens nothing any more
	Slots      []Slot
	Keyring    bool
	// Signer is the new generation's signer, as a line of authorized_keys. Sheets that name the
	// signer before it still lead to it, by a certificate. A former reader could forge that
	// certificate.
	Signer string
}

// Rotate gives the vault a new key. It copies every row into a new database under that key,
// seals sealed values again, and stores the new key in every slot and in the keyring. After
// that the old key opens only older copies of the database. Rotate needs no secret besides the
// one that opened the vault.
//
// All other processes must close the vault. Rotate waits for them, up to [Config.Wait], and
// then returns [ErrLocked] with their names. In this process it waits for running transactions;
// new ones wait, and none fails.
//
// Errors: [ErrReadOnly], [ErrUnsettled], [ErrLocked], [ErrRollback], [ErrDamaged], [ErrPlugin]
// if a slot's plugin is missing, and an error of package keyring if the vault has a keyring
// item and the keyring does not answer. After any of them the vault is unchanged and has its
// old key.
//
// If another process puts its own database in place while Rotate waits for the locks, the
// handle is closed, and the error says so. If the key was changed by then, Rotated still
// describes the new key.
func (v *Vault) Rotate(ctx context.Context) (Rotated, error) {
	// What can fail is tried first, while others still use the vault.
	plan, err := v.planRotation(ctx)
	if err != nil {
		return Rotated{}, err
	}
	defer func() { plan.key.wipe() }()
	if err := v.acceptRollback(ctx); err != nil {
		return Rotated{}, err
	}
	// While this process has the turn, the sessions of others give way.
	turn := durable.NewLock(v.paths.turn)
	if err := take(ctx, v.cfg, turn, turn.Exclusive); err != nil {
		return Rotated{}, fmt.Errorf("rotate: %w", err)
	}
	defer turn.Unlock()
	begun := time.Now()
	left := func() time.Duration { return max(v.cfg.wait()-time.Since(begun), lastTry) }
	// Only the lock shows whether another process has the vault open. While another process
	// holds it, the readers of this process need not wait.
	done, err := v.rotate(ctx, plan, lastTry)
	if errors.As(err, new(heldError)) {
		v.awaitHolders(ctx, left())
		done, err = v.rotate(ctx, plan, left())
	}
	for errors.Is(err, errSlotAdded) && left() > lastTry {
		plan.key.wipe()
		if plan, err = v.planRotation(ctx); err == nil {
			done, err = v.rotate(ctx, plan, left())
		}
	}
	if err != nil {
		return done, fmt.Errorf("rotate: %w", err)
	}
	return done, nil
}

// rotate makes one attempt at a planned rotation. others is how long it waits for other
// processes.
func (v *Vault) rotate(ctx context.Context, plan rotationPlan, others time.Duration) (done Rotated, err error) {
	if err := v.acquireAll(ctx); err != nil {
		return Rotated{}, err
	}
	defer v.gate.Release(everybody)
	if err := v.changeable(); err != nil {
		return Rotated{}, err
	}
	var unsettled error
	err = v.alone(ctx, others, func() (*Key, error) {
		t := newTransition(v.cfg, v.paths, false)
		*t.key = *plan.key // a copy, because the transition wipes its key
		t.meta.KeyID, t.wrapped = plan.key.id, plan.wrapped
		err := t.rotate(ctx, v.key, plan.seen)
		unsettled = t.unsettled
		done = Rotated{
			Generation: t.meta.Generation,
			KeyID:      plan.key.id,
			Previous:   v.key.id,
			Slots:      t.slots,
			Keyring:    t.meta.Keyring,
			Signer:     t.meta.Signer,
		}
		next := *plan.key
		return &next, err
	})
	if err != nil {
		return done, err
	}
	// If settling failed, it is tried again before the next change of the vault.
	v.setUnsettled(unsettled)
	return done, nil
}

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

// heldError says that another process has the vault open.
type heldError struct{ error }

func (e heldError) Unwrap() error { return e.error }

// errSlotAdded says that a slot was added since the plan, so the new key is not wrapped for it.
var errSlotAdded = errors.New("a slot was added meanwhile")

// PlanRotation checks, without changing anything, whether a rotation would succeed. It checks
// that no other process has the vault open, that the keyring answers if it is an unlock method,
// that the database is not an older copy, and that every slot's recipient accepts a key. It
// returns the result that a rotation would have; KeyID stays empty. Errors are those of
// [Vault.Rotate].
func (v *Vault) PlanRotation(ctx context.Context) (Rotated, error) {
	plan, err := v.planRotation(ctx)
	if err != nil {
		return Rotated{}, err
	}
	plan.key.wipe()
	if err := v.acquireAll(ctx); err != nil {
		return Rotated{}, err
	}
	defer v.gate.Release(everybody)
	if err := v.changeable(); err != nil {
		return Rotated{}, err
	}
	return plan.gives, v.alone(ctx, lastTry, func() (*Key, error) { return nil, nil })
}

// rotationPlan is a rotation after all checks that need no lock. The new key is already wrapped
// for each slot, so no plugin runs while others are blocked.
type rotationPlan struct {
	key     *Key
	wrapped map[string]string // by slot id
	seen    anchor            // how far the vault had come
	gives   Rotated
}

func (v *Vault) planRotation(ctx context.Context) (plan rotationPlan, err error) {
	if err := v.enter(ctx); err != nil {
		return plan, err
	}
	defer v.leave()
	if err := v.resettle(ctx); err != nil {
		return plan, err
	}
	plan = rotationPlan{key: generateKey(), wrapped: map[string]string{}}
	defer func() {
		if err != nil {
			plan.key.wipe()
		}
	}()
	var r reading
	err = v.view(ctx, func(tx *Tx) (err error) {
		if r, err = tx.read(ctx); err == nil {
			_, plan.seen, err = tx.anchor(ctx)
		}
		return errors.Join(err, r.replayed)
	})
	if err != nil {
		return plan, err
	}
	m, slots := r.meta, r.slots
	if m.Keyring {
		t := newTransition(v.cfg, v.paths, true)
		t.key.wipe()
		if err := t.probeKeyring(ctx); err != nil {
			return plan, err
		}
		if err := v.compareAnchor(ctx, r); err != nil && !(v.cfg.AcceptRollback && errors.Is(err, ErrRollback)) {
			return plan, err
		}
	}
	for _, s := range slots {
		if err := s.wrap(ctx, plan.key, v.cfg.Plugins); err != nil {
			return plan, err
		}
		plan.wrapped[s.ID] = s.wrapped
	}
	plan.gives = Rotated{Generation: m.Generation + 1, Previous: m.KeyID, Slots: slots, Keyring: m.Keyring}
	return plan, nil
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
	if err == nil && (id != v.key.id || !v.claim.Covers(inode)) {
		err = fmt.Errorf("%w: another process put a database of key id %s in place", ErrLocked, id)
	}
	return err
}

// takeUp switches to the database that fn has put in place, if it has.
func (v *Vault) takeUp(next *Key) error {
	id, err := readKeyID(v.paths.db)
	if err != nil || next == nil || id != next.id {
		return err
	}
	defer next.wipe()
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

// rotate is a transition that keeps the vault. The caller holds the exclusive lock, and nobody
// has the database open. seen is how far the vault had come when the rotation was planned.
func (t *transition) rotate(ctx context.Context, key *Key, seen anchor) error {
	v, err := attach(t.cfg, t.paths, key)
	if err != nil {
		return err
	}
	m, slots, err := t.examineOld(ctx, v, seen)
	if err == nil && slices.ContainsFunc(slots, func(s Slot) bool { return t.wrapped[s.ID] == "" }) {
		err = errSlotAdded
	}
	if err != nil {
		v.Close()
		return err
	}
	if err := v.quiesce(ctx); err != nil {
		return err
	}
	from := newSealer(key, m.VaultID)
	defer from.wipe()
	t.inPlace = &key.id
	t.old = &attachment{path: t.paths.db, key: key}
	t.slots = slots
	// Everything but the key stays the same.
	id, created := t.meta.KeyID, t.meta.KeyCreated
	t.meta = m
	t.meta.KeyID, t.meta.KeyCreated = id, created
	t.meta.Generation++
	t.fill = func(ctx context.Context, tx *Tx) (Event, error) {
		event := Event{
			Action:  ActionRotate,
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

// examineOld decides whether to rotate, now that nobody else can change anything. It reads the
// database, its slots file and the anchor, as an open does. And it checks that the database has
// not gone back since the rotation was planned.
func (t *transition) examineOld(ctx context.Context, v *Vault, seen anchor) (Meta, []Slot, error) {
	file, err := readSlotsFile(v.paths.slots)
	if err != nil {
		return Meta{}, nil, err
	}
	r, err := v.prove(ctx, file)
	if err == nil {
		err = r.replayed
	}
	if err != nil {
		return Meta{}, nil, err
	}
	m, slots := r.meta, r.slots
	err = v.view(ctx, func(tx *Tx) error {
		_, err := seen.check(ctx, tx, m)
		return err
	})
	if err != nil {
		return Meta{}, nil, err
	}
	t.compared = m.Keyring
	if m.Keyring {
		v.source = FromKeyring // so that compare reads the anchor
	}
	s, err := v.compare(ctx, r)
	if err != nil {
		return Meta{}, nil, err
	}
	// The entry of the old key comes first: until the commit the vault opens by it, and the
	// file may have been lost while the vault was open.
	return m, slots, v.locked(ctx, func() error { return v.writeCurrent(file, s) })
}
