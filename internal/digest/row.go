package digest

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"strconv"
)

// Hasher computes the HMAC of rows under a key. Only one goroutine may use it.
type Hasher struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

// NewHasher returns a hasher under a key.
func NewHasher(key []byte) *Hasher { return &Hasher{mac: hmac.New(sha256.New, key)} }

// Hash returns the HMAC of a row's text. The result is valid until the next call.
func (h *Hasher) Hash(text []byte) []byte {
	h.mac.Reset()
	h.mac.Write(text)
	return h.mac.Sum(h.sum[:0])
}

// RowText is the text of a row that its HMAC covers: the table, then name and value of each
// column that is not NULL. So a migration that adds a column changes no digest. The arguments
// are names and values in turn: first the columns declared NOT NULL, then the others, both in
// the order of their names. [Columns.RowText] is the same in SQL.
func RowText(table string, columns ...any) []byte {
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
