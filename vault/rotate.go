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
	plan, err := v.planRotation(ctx)
	if err != nil {
		return Rotated{}, err
	}
	defer func() { plan.key.wipe() }()
	if err := v.acceptRollback(ctx); err != nil {
		return Rotated{}, err
	}
	begun := time.Now()
	left := func() time.Duration { return max(v.cfg.wait()-time.Since(begun), lastTry) }
	// The lock alone tells whether somebody else has the vault open. While another
	// holds it, those who read here need not wait.
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

// rotate makes one attempt at a planned rotation, and waits for other processes no
// longer than that.
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
		*t.key = *plan.key // the transition wipes its own
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
	// What settling left undone is tried again before anything changes the vault.
	v.setUnsettled(unsettled)
	return done, nil
}

// acquireAll waits until every transaction of this process has ended, and keeps
// the next ones out.
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

// lastTry is how long the exclusive lock is tried for where nobody is waited for,
// or the time to wait has run out.
const lastTry = 50 * time.Millisecond

// heldError: another process has the vault open.
type heldError struct{ error }

func (e heldError) Unwrap() error { return e.error }

// errSlotAdded: the new key is not wrapped for a slot that was added since.
var errSlotAdded = errors.New("a slot was added meanwhile")

// PlanRotation does what a rotation can be tried by without changing anything:
// it sees that nobody else has the vault open, that the keyring answers where it
// is a way in, that the database is not an older copy, and that every slot's
// recipient takes a key. It returns what the rotation would give; KeyID stays
// empty. Errors are those of [Vault.Rotate].
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

// rotationPlan is a rotation that everything but the locks was tried for. Each slot
// has the new key already, so no plugin runs while others are kept out.
type rotationPlan struct {
	key     *Key
	wrapped map[string]string // by the slot's id
	seen    anchor            // how far the vault has come
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
		if err := v.compareAnchor(ctx, m); err != nil && !(v.cfg.AcceptRollback && errors.Is(err, ErrRollback)) {
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

// awaitHolders waits until no other process seems to hold the lock, or the time is
// over. It is a courtesy to the readers of this process, which need not wait
// meanwhile; what decides is the lock.
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

// alone runs fn while no process, this one included, has the database open. The
// caller has the gate to itself. fn may put another database in place, under the
// key that it returns; then the vault goes on with that one.
//
// The shared lock cannot be turned into an exclusive one in one step: whoever
// waits may come between. So everything is closed before, and looked at
// afterwards; where another process put its own database in place meanwhile, the
// vault is closed.
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
	v.store.close()
	v.claim.Release()
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
	if err == nil && (id != v.key.id || !v.claim.Covers(inode)) {
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

// rotate is a transition that keeps the vault. The exclusive lock is held, and
// nobody has the database open. seen is how far the vault had come before that.
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

// examineOld decides, now that nobody else can change anything. It reads the database, its
// slots file and the anchor as an open does, and sees that the database has not gone back
// since the rotation was planned.
func (t *transition) examineOld(ctx context.Context, v *Vault, seen anchor) (Meta, []Slot, error) {
	r, err := v.prove(ctx)
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
		v.source = FromKeyring // so that compare asks it for the anchor
	}
	file, s, err := v.compare(ctx, r)
	if err != nil {
		return Meta{}, nil, err
	}
	// The old key's entry first: until the commit it is the way in, and the file may
	// have been lost while the vault was open.
	return m, slots, v.locked(ctx, func() error { return v.writeCurrent(file, s) })
}
