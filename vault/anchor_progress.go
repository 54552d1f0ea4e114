package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// anchorProgress is what a handle knows about the anchor.
type anchorProgress struct {
	compared    bool  // the handle has compared it and may write it, unless rollback is set
	rollback    error // the database is older than the anchor
	behind      bool  // it must be written: there is none, or the audit log is ahead of it
	missing     bool  // there was none
	changedHere bool  // this handle extended the audit log
	urgent      bool  // it must be written at once
	marks       int   // counts the changes that the anchor must cover
	warned      bool  // the failure to write it was logged
	timer       *time.Timer
}

// compareAnchor compares the database with the keyring's anchor, once per handle. It returns
// [ErrRollback] if the database is older. Otherwise the handle may write the anchor from then
// on.
func (v *Vault) compareAnchor(ctx context.Context, r reading) error {
	m := r.meta
	v.mu.Lock()
	known := v.anchorProgress
	v.mu.Unlock()
	if known.compared {
		return known.rollback
	}
	found := anchorProgress{compared: true}
	a, err := v.readAnchor(ctx, m.VaultID)
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		if m.Keyring { // else the keyring becomes an unlock method only now
			v.cfg.log().Warn("the keyring had no anchor for this vault, so an older copy of the database would not have been noticed; an anchor is written now")
		}
		found.missing, found.behind, found.urgent = true, true, true
	case err == nil && a.aside:
		found.rollback = fmt.Errorf("%w: a restore replaced this vault, and then its files were put back", ErrRollback)
	case err == nil && a.head == r.head && a.generation == m.Generation:
		// The database is as the anchor saw it.
	case err == nil:
		err = v.view(ctx, func(tx *Tx) (err error) {
			found.behind, err = a.check(ctx, tx, m)
			return err
		})
		fallthrough
	default:
		if errors.Is(err, ErrRollback) {
			found.rollback = err
		} else if err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	found.warned = known.warned
	v.anchorProgress = found
	return found.rollback
}

// readAnchor returns the anchor that the keyring returned together with the key, once. After
// that it asks the keyring.
func (v *Vault) readAnchor(ctx context.Context, vaultID string) (anchor, error) {
	v.mu.Lock()
	item := v.anchorItem
	v.anchorItem = nil
	v.mu.Unlock()
	if item != nil && item.vaultID == vaultID {
		return item.parse()
	}
	return readAnchor(ctx, v.cfg.Keyring, vaultID)
}

// acceptRollback returns the rollback that compareAnchor found. If the operator accepts it, it
// is written to the audit log instead.
func (v *Vault) acceptRollback(ctx context.Context) error {
	v.mu.Lock()
	found := v.anchorProgress.rollback
	v.mu.Unlock()
	if found == nil || !v.cfg.AcceptRollback {
		return found
	}
	if err := v.Update(ctx, func(tx *Tx) error { return tx.auditRollback(ctx, found) }); err != nil {
		return err
	}
	v.acceptAnchor()
	v.followAnchor(ctx)
	return nil
}

// auditRollback takes the rows as they are for the right ones. Its audit row lists them and
// holds their digest.
func (tx *Tx) auditRollback(ctx context.Context, found error) error {
	slots, err := tx.Slots(ctx)
	if err != nil {
		return err
	}
	detail := []string{found.Error()}
	for _, s := range slots {
		detail = append(detail, "slot "+s.ID+" "+s.text())
	}
	for _, t := range contentTables {
		var n int64
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM `+quoteName(t.name)).Scan(&n); err != nil {
			return err
		}
		detail = append(detail, fmt.Sprintf("%d rows of %s", n, t.name))
	}
	for _, line := range detail[1:] {
		tx.cfg.log().Warn("accepted as it is", "what", line)
	}
	tx.moved = nil
	return tx.Audit(ctx, Event{Action: ActionAcceptRollback, Detail: strings.Join(detail, "; ")})
}

// acceptAnchor makes the anchor follow the database after the operator accepted a rollback.
func (v *Vault) acceptAnchor() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.anchorProgress.rollback, v.anchorProgress.behind, v.anchorProgress.changedHere, v.anchorProgress.urgent = nil, true, true, true
	v.anchorProgress.marks++
}

// mark notes how soon the anchor must follow what was audited. The anchor is written after the
// write lock is released: see followAnchor.
func (v *Vault) mark(audited urgency) {
	if audited == urgencyNone {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.anchorProgress.behind, v.anchorProgress.changedHere = true, true
	v.anchorProgress.urgent = v.anchorProgress.urgent || audited == urgencyNow
	v.anchorProgress.marks++
}

// markCheckpoint makes the anchor follow a checkpoint.
func (v *Vault) markCheckpoint() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.anchorProgress.urgent = v.anchorProgress.behind && v.anchorProgress.changedHere
}

// anchorDue reports whether the anchor is behind and this handle may write it.
func (v *Vault) anchorDue() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.anchorProgress.compared && v.anchorProgress.rollback == nil && v.anchorProgress.behind && !v.closed
}

// followAnchor writes the anchor if it is urgent. If not, it starts the timer that writes it
// later. The caller holds the gate and does not hold the write lock.
func (v *Vault) followAnchor(ctx context.Context) {
	if !v.anchorDue() {
		return
	}
	v.mu.Lock()
	urgent, wait := v.anchorProgress.urgent, anchorShortWait
	if v.anchorProgress.changedHere {
		wait = anchorWait
	}
	if !urgent && v.anchorProgress.changedHere && v.anchorProgress.timer == nil {
		v.anchorProgress.timer = time.AfterFunc(v.cfg.anchorDelay(), v.writeAnchorAfterDelay)
	}
	v.mu.Unlock()
	if urgent {
		v.writeAnchor(context.WithoutCancel(ctx), wait)
	}
}

// writeAnchorAfterDelay is called by the timer. It never prompts.
func (v *Vault) writeAnchorAfterDelay() {
	v.mu.Lock()
	v.anchorProgress.timer = nil
	v.mu.Unlock()
	ctx, cancel := context.WithTimeout(keyring.WithoutPrompt(context.Background()), anchorWait)
	defer cancel()
	if v.enter(ctx) != nil {
		return // a rotation or Close is running; each writes the anchor itself
	}
	defer v.leave()
	v.writeAnchor(ctx, anchorWait)
}

// writeAnchor writes the anchor if it is behind and this handle may write it. A failure is only
// logged, and only once: the change itself is already committed.
func (v *Vault) writeAnchor(ctx context.Context, wait time.Duration) {
	if !v.anchorDue() || v.cfg.now().Before(v.anchorRetry()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := v.anchorLock.Exclusive(ctx); err != nil {
		return // the holder of the lock writes the same state, or a later one
	}
	defer v.anchorLock.Unlock()
	v.mu.Lock()
	marks := v.anchorProgress.marks
	v.mu.Unlock()
	var m Meta
	var now anchor
	err := v.view(ctx, func(tx *Tx) (err error) {
		m, now, err = tx.anchor(ctx)
		return err
	})
	retry := v.cfg.now()
	if err == nil {
		account := anchorAccount(now.vaultID)
		if m.Keyring {
			err = v.cfg.Keyring.Set(ctx, account, now.String())
		} else {
			// Another process removed the keyring as an unlock method. Or the operator accepted
			// an older copy of the database, from before the keyring was one. If the anchor of
			// that other history stayed, it would later refuse the vault.
			err = v.cfg.Keyring.Delete(ctx, account)
		}
		if err != nil {
			retry = retry.Add(anchorBackOff)
		}
		os.Chtimes(v.paths.anchor, retry, retry) // best effort: see anchorRetry
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.anchorProgress.missing, v.anchorProgress.urgent = false, false
		v.anchorProgress.behind = v.anchorProgress.marks != marks
		return
	}
	if !v.anchorProgress.warned {
		v.anchorProgress.warned = true
		v.cfg.log().Warn("the keyring's anchor could not be written: until it is, an older copy of the database may not be noticed", "error", err)
	}
}

// anchorRetry returns when to write the anchor again after the keyring refused it.
func (v *Vault) anchorRetry() time.Time {
	info, err := os.Stat(v.paths.anchor)
	if err != nil || info.ModTime().After(v.cfg.now().Add(anchorBackOff)) { // the clock was set back
		return time.Time{}
	}
	return info.ModTime()
}

// stopAnchor stops the timer. The caller holds the whole gate.
func (v *Vault) stopAnchor() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.anchorProgress.timer != nil {
		v.anchorProgress.timer.Stop()
		v.anchorProgress.timer = nil
	}
}

// AnchorState says how far the keyring's anchor is behind the vault.
type AnchorState struct {
	// BehindSince is the time of the oldest change that the anchor does not cover. Zero: it
	// covers all changes.
	BehindSince time.Time
	// Retry is when the anchor is written again after the keyring refused it. Zero: soon.
	Retry time.Time
}

// Anchor compares the keyring's anchor with the vault. It returns [keyring.ErrNotFound] if
// there is none, [ErrRollback], or an error of package keyring. If the keyring is not an unlock
// method, it returns the zero state.
func (v *Vault) Anchor(ctx context.Context) (AnchorState, error) {
	var state AnchorState
	err := v.View(ctx, func(tx *Tx) error {
		m, err := tx.Meta(ctx)
		if err != nil || !m.Keyring || v.cfg.Keyring == nil || v.readOnly {
			return err
		}
		a, err := readAnchor(ctx, v.cfg.Keyring, m.VaultID)
		if err != nil {
			return err
		}
		ahead, err := a.check(ctx, tx, m)
		if err != nil || !ahead {
			return err
		}
		row, err := selectAuditRow(ctx, tx, a.head.Seq+1)
		state.BehindSince = row.At
		return err
	})
	if retry := v.anchorRetry(); retry.After(v.cfg.now()) {
		state.Retry = retry
	}
	return state, err
}

// anchor returns the anchor of the vault as the transaction sees it.
func (tx *Tx) anchor(ctx context.Context) (Meta, anchor, error) {
	m, err := tx.Meta(ctx)
	if err != nil {
		return Meta{}, anchor{}, err
	}
	head, err := tx.AuditHead(ctx)
	return m, anchor{vaultID: m.VaultID, generation: m.Generation, head: head}, err
}

// check returns [ErrRollback] if the database does not contain the state that the anchor saw.
// ahead reports whether the database has changed since that state.
func (a anchor) check(ctx context.Context, tx *Tx, m Meta) (ahead bool, err error) {
	end, err := selectAuditRowEnd(ctx, tx)
	if err != nil {
		return false, err
	}
	if a.generation > m.Generation {
		return false, fmt.Errorf("%w: the keyring has seen generation %d of its key, the database has generation %d, made %s", ErrRollback, a.generation, m.Generation, wire.FormatTime(m.KeyCreated))
	}
	if a.head.Seq > end.Seq {
		return false, fmt.Errorf("%w: the keyring has seen row %d of its audit log, the database ends with row %d of %s", ErrRollback, a.head.Seq, end.Seq, wire.FormatTime(end.At))
	}
	row, err := selectAuditRow(ctx, tx, a.head.Seq)
	if err != nil {
		return false, err
	}
	if row.Hash != a.head.Hash {
		return false, fmt.Errorf("%w: row %d of its audit log, of %s, is not the one that the keyring has seen; the log ends with row %d of %s", ErrRollback, row.Seq, wire.FormatTime(row.At), end.Seq, wire.FormatTime(end.At))
	}
	return end.Seq > a.head.Seq || m.Generation > a.generation, nil
}
