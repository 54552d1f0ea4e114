package vault

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// The anchor is what the OS keyring remembers of a vault's past: the generation
// of its key, and the head of its audit log. An older copy of the database, put
// in place with its older slots file, is behind it.
//
// It is compared where the keyring is the way in, and written only by who has
// compared it: at once after events of the vault, its slots and its backups, else
// when the vault is closed. A database may be ahead of it, as after a kill, and
// never behind.

// anchor is one keyring item: rba1:<vault id>:<generation>:<audit seq>:<audit hash>.
type anchor struct {
	vaultID    string
	generation int64
	head       AuditHead
}

const anchorPrefix = "rba1"

func anchorAccount(vaultID string) string { return vaultID + "/anchor" }

func (a anchor) String() string {
	return strings.Join([]string{
		anchorPrefix,
		a.vaultID,
		strconv.FormatInt(a.generation, 10),
		strconv.FormatInt(a.head.Seq, 10),
		hex.EncodeToString(a.head.Hash[:]),
	}, ":")
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
	fields := strings.Split(s, ":")
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

// anchoring is what a handle knows of the anchor.
type anchoring struct {
	compared bool  // it may be written,
	rollback error // unless this was found
	behind   bool  // it must be written: there is none, or the audit log has gone on
	missing  bool  // and there was none
}

// auditing tells how soon the anchor must follow what a transaction audited.
type auditing int

const (
	auditedNothing auditing = iota
	auditedLater            // on close
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
	known := v.anchoring
	v.mu.Unlock()
	if known.compared {
		return known.rollback
	}
	found := anchoring{compared: true}
	a, err := readAnchor(ctx, v.cfg.Keyring, m.VaultID)
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		if m.Keyring { // else it is a way in only from now on
			v.cfg.log().Warn("the keyring held no anchor of this vault, so an older copy of the database would not have been noticed; one is written now")
		}
		found.missing, found.behind = true, true
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
	v.setAnchoring(found)
	return found.rollback
}

// acceptRollback puts a rollback that compareAnchor found into the audit log,
// where the operator accepts it, or returns it.
func (v *Vault) acceptRollback(ctx context.Context) error {
	v.mu.Lock()
	found := v.anchoring.rollback
	v.mu.Unlock()
	if found == nil || !v.cfg.AcceptRollback {
		return found
	}
	if err := v.Update(ctx, func(tx *Tx) error { return tx.auditRollback(ctx, found) }); err != nil {
		return err
	}
	v.acceptAnchor()
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
	v.anchoring.rollback, v.anchoring.behind = nil, true
}

func (v *Vault) setAnchoring(a anchoring) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.anchoring = a
}

// readAnchor gets the anchor of a vault. What is there and is none gives
// [ErrRollback]: whoever can change it could hide one.
func readAnchor(ctx context.Context, k Keyring, vaultID string) (anchor, error) {
	value, err := k.Get(ctx, anchorAccount(vaultID))
	if err != nil {
		return anchor{}, err
	}
	a, err := parseAnchor(value)
	if err != nil || a.vaultID != vaultID {
		return anchor{}, fmt.Errorf("%w, or the keyring's item %q was changed: it is no anchor of this vault", ErrRollback, anchorAccount(vaultID))
	}
	return a, nil
}

// check refuses a database that is not what the anchor saw, or its continuation,
// and reports whether it has gone on since.
func (a anchor) check(ctx context.Context, tx *Tx, m Meta) (ahead bool, err error) {
	end, err := selectAuditRowEnd(ctx, tx)
	if err != nil {
		return false, err
	}
	if a.generation > m.Generation {
		return false, fmt.Errorf("%w: there was generation %d of its key already, the database is of generation %d, made %s", ErrRollback, a.generation, m.Generation, FormatTime(m.KeyCreated))
	}
	if a.head.Seq > end.Seq {
		return false, fmt.Errorf("%w: there was row %d of its audit log already, the database ends with row %d of %s", ErrRollback, a.head.Seq, end.Seq, FormatTime(end.At))
	}
	row, err := selectAuditRow(ctx, tx, a.head.Seq)
	if err != nil {
		return false, err
	}
	if row.Hash != a.head.Hash {
		return false, fmt.Errorf("%w: row %d of its audit log, of %s, is not the one that was there before; the log ends with row %d of %s", ErrRollback, row.Seq, FormatTime(row.At), end.Seq, FormatTime(end.At))
	}
	return end.Seq > a.head.Seq || m.Generation > a.generation, nil
}

// anchor writes the anchor after a transaction, if it must follow now. The write
// lock is held, so that an anchor never overtakes a later one.
func (v *Vault) anchor(ctx context.Context, audited auditing) {
	v.mu.Lock()
	if audited != auditedNothing {
		v.anchoring.behind = true
	}
	v.mu.Unlock()
	if audited == auditedNow {
		v.anchorLate(ctx)
	}
}

// anchorDue reports whether the anchor is behind and this handle may write it.
func (v *Vault) anchorDue() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.anchoring.compared && v.anchoring.rollback == nil && v.anchoring.behind && !v.closed
}

// anchorLate writes the anchor if it is behind and this handle may. A failure is
// only told: the change it follows is made. The write lock is held.
func (v *Vault) anchorLate(ctx context.Context) {
	if !v.anchorDue() {
		return
	}
	var m Meta
	var now anchor
	err := v.view(ctx, func(tx *Tx) (err error) {
		m, now, err = tx.anchor(ctx)
		return err
	})
	if err == nil && !m.Keyring {
		return // it was taken away as a way in, maybe by another process
	}
	if err == nil {
		err = v.cfg.Keyring.Set(ctx, anchorAccount(now.vaultID), now.String())
	}
	if err != nil {
		v.cfg.log().Warn("the keyring's anchor could not be written: until it is, it does not tell an older copy of the database from this one", "error", err)
		return
	}
	v.setAnchoring(anchoring{compared: true})
}
