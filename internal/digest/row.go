package digest

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
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
		if v := columns[i+1]; v != nil {
			text = fmt.Appendf(text, "|%s=%s", columns[i], sqlcipher.QuoteText(fmt.Sprint(v)))
		}
	}
	return text
}
