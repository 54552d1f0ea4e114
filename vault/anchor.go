package vault

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// The anchor is what the OS keyring remembers of a vault's past: the generation
// of its key, and the head of its audit log. An older copy of the database, put
// in place with its older slots file, is behind it.
//
// It is compared where the keyring is the unlock method, and written only by who has
// compared it: at once after events of the vault, its slots and its backups and after a
// checkpoint, within a minute after other audited changes, and on closing. It has a lock
// of its own, under which the head of the log is read, so it never goes back. A database
// may be ahead of it, as after a kill, and never behind.
//
// Where the keyring does not take it, nobody tries again for some minutes, in any
// process: the time of the lock's file says until when.
//
// The vault that a restore replaced has an anchor that says so: its files, put back in
// place, are refused.

// anchor is one keyring item: rba1:<vault id>:<generation>:<audit seq>:<audit hash>, and
// ":aside" behind it for a vault that was replaced.
type anchor struct {
	vaultID    string
	generation int64
	head       AuditHead
	aside      bool
}

const (
	anchorPrefix = "rba1"
	anchorAside  = ":aside"

	anchorDelay     = time.Minute            // how far the anchor may stay behind
	anchorWait      = 5 * time.Second        // for the keyring to take it
	anchorShortWait = 300 * time.Millisecond // for who only read
	anchorBackOff   = 5 * time.Minute        // after it was not taken
)

func anchorAccount(vaultID string) string { return vaultID + "/anchor" }

func (a anchor) String() string {
	text := strings.Join([]string{
		anchorPrefix,
		a.vaultID,
		strconv.FormatInt(a.generation, 10),
		strconv.FormatInt(a.head.Seq, 10),
		hex.EncodeToString(a.head.Hash[:]),
	}, ":")
	if a.aside {
		text += anchorAside
	}
	return text
}

// anchor is what would be remembered of the vault as the transaction sees it.
func (tx *Tx) anchor(ctx context.Context) (Meta, anchor, error) {
	m, err := tx.Meta(ctx)
	if err != nil {
		return Meta{}, anchor{}, err
	}
	head, err := tx.AuditHead(ctx)
	return m, anchor{vaultID: m.VaultID, generation: m.Generation, head: head}, err
}

// parseAnchor parses what String gives and nothing else, or returns [ErrInvalid].
func parseAnchor(s string) (anchor, error) {
	var a anchor
	plain, aside := strings.CutSuffix(s, anchorAside)
	a.aside = aside
	fields := strings.Split(plain, ":")
	if len(fields) == 5 {
		a.vaultID = fields[1]
		a.generation, _ = strconv.ParseInt(fields[2], 10, 64)
		a.head.Seq, _ = strconv.ParseInt(fields[3], 10, 64)
		parseHex(a.head.Hash[:], fields[4])
	}
	if a.String() != s {
		return anchor{}, fmt.Errorf("%w: not an anchor", ErrInvalid)
	}
	return a, nil
}

// anchorProgress is what a handle knows of the anchor.
type anchorProgress struct {
	compared    bool  // it may be written,
	rollback    error // unless this was found
	behind      bool  // it must be written: there is none, or the audit log has gone on
	missing     bool  // and there was none
	changedHere bool  // the log went on by this handle
	urgent      bool  // it must be written at once
	marks       int   // counts the changes that it must follow
	warned      bool  // that it was not taken
	timer       *time.Timer
}

// auditing tells how soon the anchor must follow what a transaction audited.
type auditing int

const (
	auditedNothing auditing = iota
	auditedLater            // within a minute
	auditedNow
)

// auditingOf decides by an event's action.
func auditingOf(action string) auditing {
	for _, prefix := range []string{"vault.", "slot.", "backup."} {
		if strings.HasPrefix(action, prefix) {
			return auditedNow
		}
	}
	return auditedLater
}

// compareAnchor compares the database with the keyring's anchor, once. An older
// database gives [ErrRollback]; else the handle may write the anchor from then on.
func (v *Vault) compareAnchor(ctx context.Context, m Meta) error {
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
		if m.Keyring { // else it is a way in only from now on
			v.cfg.log().Warn("the keyring held no anchor of this vault, so an older copy of the database would not have been noticed; one is written now")
		}
		found.missing, found.behind, found.urgent = true, true, true
	case err == nil && a.aside:
		found.rollback = fmt.Errorf("%w: this vault was replaced by a restore, and its files were put back", ErrRollback)
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

// acceptRollback puts a rollback that compareAnchor found into the audit log,
// where the operator accepts it, or returns it.
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

// auditRollback begins anew from the rows as they stand: it says which they are, and
// digests them.
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
		tx.cfg.log().Warn("accepted as it stands", "what", line)
	}
	tx.moved = nil
	return tx.Audit(ctx, Event{Action: "vault.accept-rollback", Detail: strings.Join(detail, "; ")})
}

// acceptAnchor is for a rollback that the operator accepted: the anchor follows.
func (v *Vault) acceptAnchor() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.anchorProgress.rollback, v.anchorProgress.behind, v.anchorProgress.changedHere, v.anchorProgress.urgent = nil, true, true, true
	v.anchorProgress.marks++
}

// anchorItem is what the keyring has under a vault's anchor account; "": nothing.
type anchorItem struct{ vaultID, value string }

// parse returns [keyring.ErrNotFound] for no item, and [ErrRollback] for a malformed one:
// whoever can change it could hide an anchor.
func (i anchorItem) parse() (anchor, error) {
	if i.value == "" {
		return anchor{}, keyring.ErrNotFound
	}
	a, err := parseAnchor(i.value)
	if err != nil || a.vaultID != i.vaultID {
		return anchor{}, fmt.Errorf("%w, or the keyring's item %q was changed: it is no anchor of this vault", ErrRollback, anchorAccount(i.vaultID))
	}
	return a, nil
}

// readAnchor gets the anchor of a vault. Errors are those of [anchorItem.parse] and of
// package keyring.
func readAnchor(ctx context.Context, k Keyring, vaultID string) (anchor, error) {
	value, err := k.Get(ctx, anchorAccount(vaultID))
	if err != nil {
		return anchor{}, err
	}
	return anchorItem{vaultID, value}.parse()
}

// readAnchor is readAnchor, once without asking the keyring where it gave the anchor with
// the key.
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

// check refuses a database that is not what the anchor saw, or its continuation,
// and reports whether it has gone on since.
func (a anchor) check(ctx context.Context, tx *Tx, m Meta) (ahead bool, err error) {
	end, err := selectAuditRowEnd(ctx, tx)
	if err != nil {
		return false, err
	}
	if a.generation > m.Generation {
		return false, fmt.Errorf("%w: there was generation %d of its key already, the database is of generation %d, made %s", ErrRollback, a.generation, m.Generation, wire.FormatTime(m.KeyCreated))
	}
	if a.head.Seq > end.Seq {
		return false, fmt.Errorf("%w: there was row %d of its audit log already, the database ends with row %d of %s", ErrRollback, a.head.Seq, end.Seq, wire.FormatTime(end.At))
	}
	row, err := selectAuditRow(ctx, tx, a.head.Seq)
	if err != nil {
		return false, err
	}
	if row.Hash != a.head.Hash {
		return false, fmt.Errorf("%w: row %d of its audit log, of %s, is not the one that was there before; the log ends with row %d of %s", ErrRollback, row.Seq, wire.FormatTime(row.At), end.Seq, wire.FormatTime(end.At))
	}
	return end.Seq > a.head.Seq || m.Generation > a.generation, nil
}

// mark notes how soon the anchor must follow what was audited. It is written behind the
// write lock: see followAnchor.
func (v *Vault) mark(audited auditing) {
	if audited == auditedNothing {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.anchorProgress.behind, v.anchorProgress.changedHere = true, true
	v.anchorProgress.urgent = v.anchorProgress.urgent || audited == auditedNow
	v.anchorProgress.marks++
}

// markCheckpoint has the anchor follow a checkpoint.
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

// followAnchor writes the anchor where it must follow at once, or sees that it follows
// soon. The caller is inside the gate and does not hold the write lock.
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

// writeAnchorAfterDelay is the timer's. It never prompts.
func (v *Vault) writeAnchorAfterDelay() {
	v.mu.Lock()
	v.anchorProgress.timer = nil
	v.mu.Unlock()
	ctx, cancel := context.WithTimeout(keyring.WithoutPrompt(context.Background()), anchorWait)
	defer cancel()
	if v.enter(ctx) != nil {
		return // a rotation or Close, which write it themselves
	}
	defer v.leave()
	v.writeAnchor(ctx, anchorWait)
}

// writeAnchor writes the anchor if it is behind and this handle may. A failure is only
// told, once: the change it follows is made.
func (v *Vault) writeAnchor(ctx context.Context, wait time.Duration) {
	if !v.anchorDue() || v.cfg.now().Before(v.anchorRetry()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := v.anchorLock.Exclusive(ctx); err != nil {
		return // who holds it writes the same, or a later one follows
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
			// Another process removed the keyring as an unlock method, or an older copy
			// of the database from before it was one was accepted. Without this, the
			// anchor of another past would refuse the vault later.
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
		v.cfg.log().Warn("the keyring's anchor could not be written: until it is, it does not tell an older copy of the database from this one", "error", err)
	}
}

// anchorRetry is when the anchor may be tried again, after the keyring did not take it.
func (v *Vault) anchorRetry() time.Time {
	info, err := os.Stat(v.paths.anchor)
	if err != nil || info.ModTime().After(v.cfg.now().Add(anchorBackOff)) { // a clock was set
		return time.Time{}
	}
	return info.ModTime()
}

// stopAnchor ends the timer. The caller has the gate to itself.
func (v *Vault) stopAnchor() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.anchorProgress.timer != nil {
		v.anchorProgress.timer.Stop()
		v.anchorProgress.timer = nil
	}
}

// AnchorState tells how far the keyring's memory of the vault has come.
type AnchorState struct {
	// BehindSince is when the oldest change was made that it does not know; zero: it
	// knows all.
	BehindSince time.Time
	// Retry is when it is tried again, after the keyring did not take it; zero: soon.
	Retry time.Time
}

// Anchor compares the keyring's anchor with the vault. It returns [keyring.ErrNotFound]
// where there is none, [ErrRollback], or an error of package keyring. Where the keyring is
// no unlock method, it returns the zero state.
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

// setAnchorAside marks the anchor of a vault that was replaced: its files must not open
// in place any more by the keyring.
func setAnchorAside(ctx context.Context, k Keyring, vaultID string) error {
	a, err := readAnchor(ctx, k, vaultID)
	if errors.Is(err, keyring.ErrNotFound) {
		a, err = anchor{vaultID: vaultID}, nil
	}
	if err != nil || a.aside {
		return err
	}
	a.aside = true
	return k.Set(ctx, anchorAccount(vaultID), a.String())
}
