package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

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
	defer func() { plan.key.Wipe() }()
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
	done, err := v.tryRotation(ctx, plan, lastTry)
	if errors.As(err, new(heldError)) {
		v.awaitHolders(ctx, left())
		done, err = v.tryRotation(ctx, plan, left())
	}
	for errors.Is(err, errSlotAdded) && left() > lastTry {
		var again rotationPlan
		if again, err = v.planRotation(ctx); err == nil {
			plan.key.Wipe()
			plan = again
			done, err = v.tryRotation(ctx, plan, left())
		}
	}
	if err != nil {
		return done, fmt.Errorf("rotate: %w", err)
	}
	return done, nil
}

// tryRotation makes one attempt at a planned rotation. others is how long it waits for other
// processes.
func (v *Vault) tryRotation(ctx context.Context, plan rotationPlan, others time.Duration) (done Rotated, err error) {
	if err := v.acquireAll(ctx); err != nil {
		return Rotated{}, err
	}
	defer v.gate.Release(everybody)
	if err := v.changeable(); err != nil {
		return Rotated{}, err
	}
	var unsettled error
	err = v.alone(ctx, others, func() (*Key, error) {
		key := *plan.key // a copy, because the transition wipes its key
		t := newTransition(v.cfg, v.paths, &key, false)
		t.wrapped = plan.wrapped
		err := t.replaceKey(ctx, v.key, plan.seen)
		unsettled = t.unsettled
		done = Rotated{
			Generation: t.meta.Generation,
			KeyID:      plan.key.ID(),
			Previous:   v.key.ID(),
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

// errSlotAdded says that a slot was added since the plan, so the new key is not wrapped for it.
var errSlotAdded = errors.New("a slot was added meanwhile")

// replaceKey is a transition that keeps the vault. key is the old key. The caller holds the
// exclusive lock, and nobody has the database open. seen is how far the vault had come when the
// rotation was planned.
func (t *transition) replaceKey(ctx context.Context, key *Key, seen anchor) error {
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
	t.place = placeOwn
	t.old = &attachment{path: t.paths.db, key: key}
	t.slots = slots
	// Everything but the key stays the same.
	id, created := t.meta.KeyID, t.meta.KeyCreated
	t.meta = m
	t.meta.KeyID, t.meta.KeyCreated = id, created
	t.meta.Generation++
	t.fill = func(ctx context.Context, tx *Tx) (Event, error) { return t.fillFromOld(ctx, tx, from, m) }
	return t.run(ctx)
}

// fillFromOld copies the rows of the old database. Its signing key is the new signer's
// predecessor.
func (t *transition) fillFromOld(ctx context.Context, tx *Tx, from sealer, m Meta) (Event, error) {
	event := Event{
		Action:  ActionRotate,
		Subject: m.VaultID,
		Detail:  fmt.Sprintf("generation %d, %d slots, keyring %t", t.meta.Generation, len(t.slots), m.Keyring),
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
