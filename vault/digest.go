package vault

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// The content digest. SQLCipher proves that a page was written under the key, not
// that it is the newest: who can write the file can put an older page back. So each
// row of the audit log holds a digest of all the rows as the change left them, and
// whoever reads everything compares.
//
// The digest of a set of rows is their count and the XOR of an HMAC of each
// (MSet-XOR-Hash, Clarke et al., 2003), so a change costs as much as the rows that it
// changes. There are two: of the configuration, and of the slots, which are compared
// at every open.
//
// The write connection maintains it by triggers of its own, which see cascades too;
// see digest_sql.go. A transition, a migration and an accepted rollback compute it
// from the rows as they stand.

// rowSet is the digest of a set of rows.
type rowSet struct {
	count int64
	sum   [sha256.Size]byte
}

// move adds a row to the set (count 1) or takes it away (count -1).
func (s *rowSet) move(count int64, row []byte) {
	s.count += count
	subtle.XORBytes(s.sum[:], s.sum[:], row)
}

func (s rowSet) plus(change rowSet) rowSet {
	s.move(change.count, change.sum[:])
	return s
}

// digest is what an audit row says of the rows.
type digest struct {
	content rowSet
	slots   rowSet // with what vault_meta says of the unlock methods
}

func (d digest) plus(change digest) digest {
	return digest{d.content.plus(change.content), d.slots.plus(change.slots)}
}

// String is the form in the audit log: <count>:<64 hex>:<slots count>:<64 hex>.
func (d digest) String() string {
	return fmt.Sprintf("%d:%x:%d:%x", d.content.count, d.content.sum, d.slots.count, d.slots.sum)
}

// parseDigest parses what String gives, or returns [ErrInvalid].
func parseDigest(s string) (digest, error) {
	var d digest
	fields := strings.Split(s, ":")
	if len(fields) == 4 {
		d.content.count, _ = strconv.ParseInt(fields[0], 10, 64)
		parseHex(d.content.sum[:], fields[1])
		d.slots.count, _ = strconv.ParseInt(fields[2], 10, 64)
		parseHex(d.slots.sum[:], fields[3])
	}
	if d.String() != s {
		return digest{}, fmt.Errorf("%w: not a digest", ErrInvalid)
	}
	return d, nil
}

// rowHasher computes the HMAC of rows under a key. It is for one goroutine.
type rowHasher struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newRowHasher(key []byte) *rowHasher { return &rowHasher{mac: hmac.New(sha256.New, key)} }

// hash returns the HMAC of a row's text, until the next call.
func (h *rowHasher) hash(text []byte) []byte {
	h.mac.Reset()
	h.mac.Write(text)
	return h.mac.Sum(h.sum[:0])
}

// rowText is the text of a row that its HMAC covers: its table, then name and value of
// each column that is not NULL, so that a migration which adds a column changes no
// digest. Names and values alternate in columns: first those that are declared NOT NULL,
// then the others, both in the order of their names. [columns.rowText] is the same in
// SQL.
func rowText(table string, columns ...any) []byte {
	text := []byte(table)
	for i := 0; i < len(columns); i += 2 {
		if v := columns[i+1]; v != nil {
			text = fmt.Appendf(text, "|%s=%s", columns[i], quoteText(fmt.Sprint(v)))
		}
	}
	return text
}

// digestedTable is a table that the digest covers, but for some columns.
type digestedTable struct {
	name    string
	leftOut []string // columns that hold state, whose changes are not audited
}

// contentTables are the tables of the configuration; the table of slots is covered by
// the other digest. Not covered: audit_log, whose chain covers it; backups, which
// tells of files; of vault_meta what stays as long as the key does.
var contentTables = []digestedTable{
	{"beehives", []string{"status", "last_connected_unix"}},
	{"node_details", nil},
	{"node_labels", nil},
	{"ssh_keys", []string{"used"}},
	{"beehive_ssh_keys", nil},
	{"host_keys", []string{"first_seen", "last_seen"}},
	{"signers", []string{"sheet"}},
}

var slotsTable = digestedTable{name: "slots"}

// contentCheck sees that the rows which somebody reads in a transaction, to carry them
// on, are those that the audit log tells of: each row is counted by the statement that
// reads it, so that no other page can be put in its place between two reads.
type contentCheck struct {
	want    digest
	columns columns
	hasher  *rowHasher
	sums    map[string]rowSet   // by table, of the last reading
	earlier map[string][]rowSet // of readings before that one
}

// BeginCheck begins a check of all rows of the registry and of the signers that are read
// in this transaction, until [Tx.EndCheck].
func (tx *Tx) BeginCheck(ctx context.Context) error {
	want, err := tx.auditedDigest(ctx)
	if err != nil {
		return err
	}
	c, err := tx.selectColumns(ctx)
	if err != nil {
		return err
	}
	tx.check = &contentCheck{
		want:    want,
		columns: c,
		hasher:  tx.sealer.rowHasher(),
		sums:    map[string]rowSet{},
		earlier: map[string][]rowSet{},
	}
	return nil
}

// auditedDigest is the digest that the newest audit row tells.
func (tx *Tx) auditedDigest(ctx context.Context) (digest, error) {
	head, last, err := selectAuditHead(ctx, tx)
	if err != nil {
		return digest{}, fmt.Errorf("read audit head: %w", err)
	}
	d, err := parseDigest(last)
	if err != nil {
		return digest{}, fmt.Errorf("%w: row %d: %w", ErrAudit, head.Seq, err)
	}
	return d, nil
}

// Checked returns an SQL expression that whoever reads all rows of a table selects
// beside them, given the table's alias in the query; each row's value goes to
// [Tx.CountRow]. Without a check it is NULL.
func (tx *Tx) Checked(table, alias string) string {
	if tx.check == nil {
		return "NULL"
	}
	if sum, ok := tx.check.sums[table]; ok {
		tx.check.earlier[table] = append(tx.check.earlier[table], sum)
	}
	tx.check.sums[table] = rowSet{}
	for _, t := range contentTables {
		if t.name == table {
			return tx.check.columns.rowText(t, alias)
		}
	}
	panic("the digest does not cover the table " + table)
}

// CountRow counts a row that was read, by the value of [Tx.Checked].
func (tx *Tx) CountRow(table string, text []byte) {
	if tx.check != nil && text != nil {
		sum := tx.check.sums[table]
		sum.move(1, tx.check.hasher.hash(text))
		tx.check.sums[table] = sum
	}
}

// EndCheck compares what was read. Each table must have been read as a whole. The error
// matches [ErrRollback].
func (tx *Tx) EndCheck() error {
	c := tx.check
	tx.check = nil
	var seen rowSet
	for _, t := range contentTables {
		seen = seen.plus(c.sums[t.name])
		for _, sum := range c.earlier[t.name] {
			if sum != c.sums[t.name] {
				return fmt.Errorf("%w: two readings of %s differ", ErrRollback, t.name)
			}
		}
	}
	return compareContent(seen, c.want.content)
}

func compareContent(seen, want rowSet) error {
	if seen != want {
		return errOldRows("nodes, SSH keys, host keys or signers", seen, want)
	}
	return nil
}

// VerifyContent reads every row that the digest covers and compares. The error
// matches [ErrRollback]. It reads the tables, not their indexes: see
// [Vault.CheckPages] for those.
func (tx *Tx) VerifyContent(ctx context.Context) error {
	want, err := tx.auditedDigest(ctx)
	if err != nil {
		return err
	}
	now, err := tx.computeDigest(ctx)
	if err != nil {
		return err
	}
	if now.slots != want.slots {
		return errOldRows("slots", now.slots, want.slots)
	}
	return compareContent(now.content, want.content)
}

// errOldRows says that rows are not what the audit log tells of.
func errOldRows(what string, seen, want rowSet) error {
	if seen.count != want.count {
		return fmt.Errorf("%w: its %s are not those of the newest audit row: %d rows, not %d; older pages of the file were put back", ErrRollback, what, seen.count, want.count)
	}
	return fmt.Errorf("%w: its %s are not those of the newest audit row: older pages of the file were put back", ErrRollback, what)
}

// checkUnlocking compares the slots and what vault_meta says of the unlock methods, as
// read in this transaction, with the audit log. The error matches [ErrRollback].
func (tx *Tx) checkUnlocking(ctx context.Context, m Meta, slots []Slot) error {
	want, err := tx.auditedDigest(ctx)
	if err != nil {
		return err
	}
	version, err := tx.schemaVersion(ctx)
	if err != nil {
		return err
	}
	var seen rowSet
	h := tx.sealer.rowHasher()
	for _, s := range slots {
		seen.move(1, h.hash(s.rowText()))
	}
	seen.move(1, h.hash(m.unlockingText(version)))
	if seen != want.slots {
		return errOldRows("slots", seen, want.slots)
	}
	return nil
}
