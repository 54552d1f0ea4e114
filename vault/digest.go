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

// The content digest protects against old pages. SQLCipher proves that a page was written under
// the key. It does not prove that the page is the newest: an attacker who can write the file
// can put an older page back. So each row of the audit log holds a digest of all rows as they
// were after the change. Whoever reads all rows compares them with the newest audit row.
//
// The digest of a set of rows is their count and the XOR of an HMAC of each row (MSet-XOR-Hash,
// Clarke et al., 2003). So the cost of a change depends only on the rows that it changes. There
// are two digests: one of the configuration, and one of the slots, which is compared at every
// open.
//
// Triggers on the write connection maintain the digest, also for cascades; see digest_sql.go. A
// transition, a migration and an accepted rollback compute it from all rows.

// rowSet is the digest of a set of rows.
type rowSet struct {
	count int64
	sum   [sha256.Size]byte
}

// move adds a row to the set (count 1) or removes it (count -1).
func (s *rowSet) move(count int64, row []byte) {
	s.count += count
	subtle.XORBytes(s.sum[:], s.sum[:], row)
}

func (s rowSet) plus(change rowSet) rowSet {
	s.move(change.count, change.sum[:])
	return s
}

// digest is the digest in an audit row.
type digest struct {
	content rowSet
	slots   rowSet // with the columns of vault_meta about the unlock methods
}

func (d digest) plus(change digest) digest {
	return digest{d.content.plus(change.content), d.slots.plus(change.slots)}
}

// String is the form in the audit log: <count>:<64 hex>:<slots count>:<64 hex>.
func (d digest) String() string {
	return fmt.Sprintf("%d:%x:%d:%x", d.content.count, d.content.sum, d.slots.count, d.slots.sum)
}

// parseDigest parses what String returns. The error for anything else is [ErrInvalid].
func parseDigest(s string) (digest, error) {
	content, slots, ok := cutRowSets(s)
	c, ok1 := parseRowSet(content)
	d, ok2 := parseRowSet(slots)
	if !ok || !ok1 || !ok2 {
		return digest{}, fmt.Errorf("%w: not a digest", ErrInvalid)
	}
	return digest{c, d}, nil
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

func parseRowSet(s string) (set rowSet, ok bool) {
	count, sum, _ := strings.Cut(s, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != count || !parseHex(set.sum[:], sum) {
		return rowSet{}, false
	}
	set.count = n
	return set, true
}

// rowHasher computes the HMAC of rows under a key. Only one goroutine may use it.
type rowHasher struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newRowHasher(key []byte) *rowHasher { return &rowHasher{mac: hmac.New(sha256.New, key)} }

// hash returns the HMAC of a row's text. The result is valid until the next call.
func (h *rowHasher) hash(text []byte) []byte {
	h.mac.Reset()
	h.mac.Write(text)
	return h.mac.Sum(h.sum[:0])
}

// rowText is the text of a row that its HMAC covers: the table, then name and value of each
// column that is not NULL. So a migration that adds a column changes no digest. The arguments
// are names and values in turn: first the columns declared NOT NULL, then the others, both in
// the order of their names. [columns.rowText] is the same in SQL.
func rowText(table string, columns ...any) []byte {
	text := []byte(table)
	for i := 0; i < len(columns); i += 2 {
		if v := columns[i+1]; v != nil {
			text = fmt.Appendf(text, "|%s=%s", columns[i], quoteText(fmt.Sprint(v)))
		}
	}
	return text
}

// digestedTable is a table that the digest covers, except for some columns.
type digestedTable struct {
	name    string
	leftOut []string // columns with state, whose changes are not audited
}

// contentTables are the tables of the configuration. The table of slots has its own digest. Not
// covered: audit_log, which its chain protects; backups, which describes files; and the columns
// of vault_meta that stay the same as long as the key does.
var contentTables = []digestedTable{
	{"beehives", []string{"status", "last_connected_unix"}},
	{"node_details", nil},
	{"node_labels", nil},
	{"ssh_keys", []string{"used"}},
	{"beehive_ssh_keys", nil},
	{"host_keys", []string{"first_seen", "last_seen"}},
	{"key_rotations", nil},
	{"signers", []string{"sheet"}},
}

var slotsTable = digestedTable{name: "slots"}

// contentCheck checks rows that are read in a transaction to be stored elsewhere, as in a
// backup. They must be those of the newest audit row. Each row is counted by the same statement
// that reads it, so that no other page can be put in place between two reads.
type contentCheck struct {
	want    digest
	columns columns
	hasher  *rowHasher
	sums    map[string]rowSet   // by table, of the last read
	earlier map[string][]rowSet // of earlier reads
}

// BeginCheck begins a check of all rows of the registry and of the signers that this
// transaction reads. It ends with [Tx.EndCheck].
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

// auditedDigest returns the digest in the newest audit row.
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

// Checked returns an SQL expression for a query that reads all rows of a table. alias is the
// table's alias in the query. The query selects the expression too, and passes its value for
// each row to [Tx.CountRow]. Without a check the expression is NULL.
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

// CountRow counts a row that was read. text is the value of [Tx.Checked].
func (tx *Tx) CountRow(table string, text []byte) {
	if tx.check != nil && text != nil {
		sum := tx.check.sums[table]
		sum.move(1, tx.check.hasher.hash(text))
		tx.check.sums[table] = sum
	}
}

// EndCheck compares the rows that were read with the newest audit row. Each table must have
// been read completely. The error matches [ErrRollback].
func (tx *Tx) EndCheck() error {
	c := tx.check
	tx.check = nil
	var seen rowSet
	for _, t := range contentTables {
		seen = seen.plus(c.sums[t.name])
		for _, sum := range c.earlier[t.name] {
			if sum != c.sums[t.name] {
				return fmt.Errorf("%w: two reads of %s differ", ErrRollback, t.name)
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

// VerifyContent reads every row that the digest covers and compares them with the newest audit
// row. The error matches [ErrRollback]. It reads the tables and not their indexes; see
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

// errOldRows is the error for rows that are not those of the newest audit row.
func errOldRows(what string, seen, want rowSet) error {
	if seen.count != want.count {
		return fmt.Errorf("%w: its %s are not those of the newest audit row: %d rows, not %d; older pages of the file were put back", ErrRollback, what, seen.count, want.count)
	}
	return fmt.Errorf("%w: its %s are not those of the newest audit row: older pages of the file were put back", ErrRollback, what)
}

// checkUnlocking compares the slots and what vault_meta says about the unlock methods with the
// newest audit row. The error matches [ErrRollback].
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
