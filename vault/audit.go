package vault

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// Event is one change, for the audit log. No field may contain a secret.
type Event struct {
	Action  EventAction
	Subject string // what was changed: a node's name; may be empty
	Detail  string // what exactly happened; may be empty
}

// AuditRow is a row of the audit log. Its hash covers the row and the hash of the row before
// it. So if a row is changed, removed or inserted, every later hash shows it. The chain alone
// cannot show that the newest rows are missing. A head that was recorded elsewhere shows that:
// in a backup or in the anchor.
type AuditRow struct {
	Seq      int64
	At       time.Time // whole milliseconds
	Actor    string
	Via      string
	Action   string
	Subject  string // "" is stored as NULL
	Detail   string // "" is stored as NULL
	Digest   string // of all rows after the change
	PrevHash [32]byte
	Hash     [32]byte
}

// auditRowFormat is hashed first, so that a row of a later format cannot be taken for a row of
// this one.
const auditRowFormat = 1

// sum computes the row's hash. It is SHA-256 over the format number, the previous hash and the
// fields. Each field is preceded by a byte that says whether it is present, and by its 32-bit
// big-endian length.
func (r AuditRow) sum() [32]byte {
	var room [1024]byte // most rows fit
	text := append(room[:0], auditRowFormat)
	text = append(text, r.PrevHash[:]...)
	field := func(s string, present bool) {
		if present {
			text = append(text, 1)
		} else {
			text = append(text, 0)
		}
		text = binary.BigEndian.AppendUint32(text, uint32(len(s)))
		text = append(text, s...)
	}
	field(strconv.FormatInt(r.Seq, 10), true)
	field(strconv.FormatInt(r.At.UnixMilli(), 10), true)
	field(r.Actor, true)
	field(r.Via, true)
	field(r.Action, true)
	field(r.Subject, r.Subject != "")
	field(r.Detail, r.Detail != "")
	field(r.Digest, true)
	return sha256.Sum256(text)
}

// AuditHead is the number and the hash of the newest row. It is zero for an empty log.
type AuditHead struct {
	Seq  int64
	Hash [32]byte
}

// Follow checks that the row continues a log that ends at head, and returns the new head. The
// error matches [ErrAudit].
func (head AuditHead) Follow(r AuditRow) (AuditHead, error) {
	switch {
	case r.Seq != head.Seq+1:
		return head, fmt.Errorf("%w: row %d is followed by row %d", ErrAudit, head.Seq, r.Seq)
	case r.PrevHash != head.Hash:
		return head, fmt.Errorf("%w: row %d does not continue row %d", ErrAudit, r.Seq, head.Seq)
	case r.sum() != r.Hash:
		return head, fmt.Errorf("%w: row %d was changed", ErrAudit, r.Seq)
	}
	return AuditHead{Seq: r.Seq, Hash: r.Hash}, nil
}

type auditRowJSON struct {
	Seq      int64   `json:"seq"`
	At       string  `json:"at"`
	Actor    string  `json:"actor"`
	Via      string  `json:"via"`
	Action   string  `json:"action"`
	Subject  *string `json:"subject"`
	Detail   *string `json:"detail"`
	Digest   string  `json:"digest"`
	PrevHash string  `json:"prev_hash"`
	Hash     string  `json:"hash"`
}

// MarshalJSON returns the row as backups contain it and as `audit list --json` prints it.
func (r AuditRow) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil) }

// AppendJSON appends what MarshalJSON returns.
func (r AuditRow) AppendJSON(buf []byte) ([]byte, error) {
	l := wire.NewLine(buf)
	l.Int("seq", r.Seq)
	l.Time("at", r.At)
	l.Text("actor", r.Actor)
	l.Text("via", r.Via)
	l.Text("action", r.Action)
	l.Nullable("subject", r.Subject)
	l.Nullable("detail", r.Detail)
	l.Text("digest", r.Digest)
	l.Hex("prev_hash", r.PrevHash[:])
	l.Hex("hash", r.Hash[:])
	return l.End()
}

// UnmarshalJSON parses what MarshalJSON returns. It does not verify the hash.
func (r *AuditRow) UnmarshalJSON(data []byte) error {
	row, ok := scanAuditRow(string(data))
	if !ok {
		var err error
		if row, err = parseAuditRow(data); err != nil {
			return err
		}
	}
	if _, err := digest.Parse(row.Digest); err != nil {
		return err
	}
	if err := row.checkText(); err != nil {
		return err
	}
	*r = row
	return nil
}

// checkText refuses a row with texts that no vault writes. On a terminal such a row could show
// more than itself, and a later vault could not store it.
func (r AuditRow) checkText() error {
	if r.Actor != auditText(r.Actor, maxActor) || r.Via != auditText(r.Via, maxActor) || r.Action != auditText(r.Action, maxAction) ||
		r.Subject != auditText(r.Subject, maxSubject) || r.Detail != auditText(r.Detail, maxDetail) {
		return fmt.Errorf("%w: a text of audit row %d is too long or has control characters", ErrInvalid, r.Seq)
	}
	return nil
}

// parseAuditRow parses any JSON of a row.
func parseAuditRow(data []byte) (AuditRow, error) {
	var j auditRowJSON
	if err := wire.Unmarshal(data, &j); err != nil {
		return AuditRow{}, err
	}
	at, err := wire.ParseTime(j.At)
	if err != nil {
		return AuditRow{}, err
	}
	row := AuditRow{Seq: j.Seq, At: at, Actor: j.Actor, Via: j.Via, Action: j.Action, Subject: wire.Text(j.Subject), Detail: wire.Text(j.Detail), Digest: j.Digest}
	if !wire.ParseHex(row.PrevHash[:], j.PrevHash) || !wire.ParseHex(row.Hash[:], j.Hash) {
		return AuditRow{}, fmt.Errorf("%w: a hash has 64 lower-case hex digits", ErrInvalid)
	}
	if (j.Subject != nil && *j.Subject == "") || (j.Detail != nil && *j.Detail == "") {
		return AuditRow{}, fmt.Errorf("%w: an absent text is null, not empty", ErrInvalid)
	}
	return row, nil
}

// scanAuditRow parses the form that MarshalJSON writes, many times faster than parseAuditRow
// does. It may fail for any text, which parseAuditRow then decides about.
func scanAuditRow(line string) (r AuditRow, ok bool) {
	s := wire.NewScan(line)
	s.Literal(`"seq":`)
	r.Seq = s.Int()
	s.Literal(`,"at":`)
	r.At = s.Time()
	s.Literal(`,"actor":`)
	r.Actor = s.Text()
	s.Literal(`,"via":`)
	r.Via = s.Text()
	s.Literal(`,"action":`)
	r.Action = s.Text()
	s.Literal(`,"subject":`)
	r.Subject = s.Nullable()
	s.Literal(`,"detail":`)
	r.Detail = s.Nullable()
	s.Literal(`,"digest":`)
	r.Digest = s.Text()
	s.Literal(`,"prev_hash":`)
	ok = wire.ParseHex(r.PrevHash[:], s.Text())
	s.Literal(`,"hash":`)
	ok = wire.ParseHex(r.Hash[:], s.Text()) && ok
	return r, s.End() && ok
}
