// Package digest computes the content digest of a vault, which protects against old pages.
//
// SQLCipher proves that a page was written under the key. It does not prove that the page is the
// newest: an attacker who can write the file can put an older page back. So each row of the audit
// log holds a digest of all rows as they were after the change. Whoever reads all rows compares
// them with the newest audit row.
//
// The digest of a set of rows ([RowSet]) is their count and the XOR of an HMAC of each row
// (MSet-XOR-Hash, Clarke et al., 2003). So the cost of a change depends only on the rows that it
// changes. A [Digest] has two sets: one of the configuration, and one of the slots, which is
// compared at every open.
//
// Triggers on the write connection carry the digest forward, also for cascades: see [Maintain].
// A migration and an accepted rollback compute it from all rows: see [Columns.SumRows]. So does a
// transition, but a restore computes most of it from the rows that it is given, and compares the
// rows of the finished database with it: see [Inserted]. This package knows tables and rows, but no policy: it does not say when a
// digest is stored or compared.
package digest

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// ErrOld: the rows are not those of the digest.
var ErrOld = errors.New("database is an older copy")

// RowSet is the digest of a set of rows.
type RowSet struct {
	count int64
	sum   [sha256.Size]byte
}

// Move adds a row, by its HMAC, to the set (count 1) or removes it (count -1).
func (s *RowSet) Move(count int64, row []byte) {
	s.count += count
	subtle.XORBytes(s.sum[:], s.sum[:], row)
}

// Plus returns the set after a change.
func (s RowSet) Plus(change RowSet) RowSet {
	s.Move(change.count, change.sum[:])
	return s
}

// Digest is the digest in an audit row.
type Digest struct {
	Content RowSet
	Slots   RowSet // with the columns of vault_meta about the unlock methods
}

// Plus returns the digest after a change.
func (d Digest) Plus(change Digest) Digest {
	return Digest{d.Content.Plus(change.Content), d.Slots.Plus(change.Slots)}
}

// String is the form in the audit log: <count>:<64 hex>:<slots count>:<64 hex>.
func (d Digest) String() string {
	return fmt.Sprintf("%d:%x:%d:%x", d.Content.count, d.Content.sum, d.Slots.count, d.Slots.sum)
}

// Parse parses what String returns. The error for anything else is [wire.ErrInvalid].
func Parse(s string) (Digest, error) {
	content, slots, ok := cutRowSets(s)
	c, ok1 := parseRowSet(content)
	d, ok2 := parseRowSet(slots)
	if !ok || !ok1 || !ok2 {
		return Digest{}, fmt.Errorf("%w: not a digest", wire.ErrInvalid)
	}
	return Digest{c, d}, nil
}

// cutRowSets cuts a digest behind the second of its four fields.
func cutRowSets(s string) (content, slots string, ok bool) {
	first := strings.IndexByte(s, ':')
	second := strings.IndexByte(s[first+1:], ':')
	if first < 0 || second < 0 {
		return "", "", false
	}
	at := first + 1 + second
	return s[:at], s[at+1:], true
}

func parseRowSet(s string) (set RowSet, ok bool) {
	count, sum, _ := strings.Cut(s, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != count || !wire.ParseHex(set.sum[:], sum) {
		return RowSet{}, false
	}
	set.count = n
	return set, true
}

// CompareContent compares the rows of the configuration. The error matches [ErrOld].
func CompareContent(seen, want RowSet) error {
	return compare("nodes, SSH keys, host keys or signers", seen, want)
}

// CompareSlots compares the rows of the slots. The error matches [ErrOld].
func CompareSlots(seen, want RowSet) error { return compare("slots", seen, want) }

func compare(what string, seen, want RowSet) error {
	switch {
	case seen == want:
		return nil
	case seen.count != want.count:
		return fmt.Errorf("%w: its %s are not those of the newest audit row: %d rows, not %d; older pages of the file were put back", ErrOld, what, seen.count, want.count)
	}
	return fmt.Errorf("%w: its %s are not those of the newest audit row: older pages of the file were put back", ErrOld, what)
}
