package vault

import (
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
// migration and an accepted rollback compute it from all rows. So does a transition, but a restore
// computes most of it from the rows that it is given, and compares the rows of the finished
// database with it; see inserted_rows.go.

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
		text = appendColumn(text, columns[i].(string), columns[i+1])
	}
	return text
}

// appendColumn appends a column to the text of a row.
func appendColumn(text []byte, name string, value any) []byte {
	if value == nil {
		return text
	}
	text = append(text, '|')
	text = append(text, name...)
	text = append(text, "='"...)
	switch v := value.(type) {
	case string:
		for i := range len(v) {
			if text = append(text, v[i]); v[i] == '\'' {
				text = append(text, '\'')
			}
		}
	case int64:
		text = strconv.AppendInt(text, v, 10)
	case int:
		text = strconv.AppendInt(text, int64(v), 10)
	case []byte:
		text = fmt.Appendf(text, "%X", v)
	default:
		panic(fmt.Sprintf("a column has the type %T", v))
	}
	return append(text, '\'')
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
	{"backup_targets", nil},
}

var slotsTable = digestedTable{name: "slots"}

func quoteText(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func compareContent(seen, want rowSet) error {
	if seen != want {
		return errOldRows("nodes, SSH keys, host keys or signers", seen, want)
	}
	return nil
}

// errOldRows is the error for rows that are not those of the newest audit row.
func errOldRows(what string, seen, want rowSet) error {
	if seen.count != want.count {
		return fmt.Errorf("%w: its %s are not those of the newest audit row: %d rows, not %d; older pages of the file were put back", ErrRollback, what, seen.count, want.count)
	}
	return fmt.Errorf("%w: its %s are not those of the newest audit row: older pages of the file were put back", ErrRollback, what)
}
